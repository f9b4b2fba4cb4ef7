//! `label_replace` and `label_join`: series keep their cells and get other labels.

use regex::Regex;

use crate::store::Labels;

use super::super::parse::{States, anchored};
use super::super::value::with;

/// `label_replace(v, target, replacement, source, regex)` with the regex compiled once.
pub struct Replace {
    target: String,
    replacement: String,
    source: String,
    regex: Regex,
}

impl Replace {
    pub fn new(target: &str, replacement: &str, source: &str, regex: &str) -> Result<Self, String> {
        let compiled = anchored(regex, &mut States::default())
            .map_err(|_| format!("invalid regular expression in label_replace(): {regex}"))?;
        check_name(target, "label_replace")?;
        Ok(Self {
            target: target.to_owned(),
            replacement: replacement.to_owned(),
            source: source.to_owned(),
            regex: compiled,
        })
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    /// `None` where the regex does not match: the series stays as it is.
    pub fn apply(&self, labels: &Labels) -> Option<Labels> {
        let source = labels.get(&self.source).map_or("", |value| value);
        let captures = self.regex.captures(source)?;
        let mut value = String::new();
        captures.expand(&self.replacement, &mut value);
        Some(with(labels, [(self.target.clone(), value)]))
    }
}

pub fn join(labels: &Labels, target: &str, separator: &str, sources: &[String]) -> Labels {
    let values: Vec<&str> = sources.iter().map(|source| labels.get(source).map_or("", |value| &**value)).collect();
    with(labels, [(target.to_owned(), values.join(separator))])
}

/// Label names are any UTF-8 text but the empty one.
pub fn check_name(name: &str, function: &str) -> Result<(), String> {
    if name.is_empty() { Err(format!("invalid destination label name in {function}(): {name}")) } else { Ok(()) }
}
