//! Whether two servers gave the same answer.

use std::collections::BTreeMap;

use serde_json::Value;

/// Two ways of adding up the same numbers differ by less.
const RELATIVE: f64 = 1e-9;

/// How many series or names an answer has; of one number the number too.
pub fn series(body: &str) -> String {
    let Some(result) = result(body) else { return "?".to_owned() };
    match result.as_slice() {
        [one] if one["metric"].as_object().is_some_and(|labels| labels.is_empty()) && one["value"].is_array() => {
            format!("1 (= {})", one["value"][1].as_str().unwrap_or("?"))
        }
        many => many.len().to_string(),
    }
}

pub fn verdict(ours: &str, theirs: &str) -> String {
    let (Some(ours), Some(theirs)) = (result(ours), result(theirs)) else { return "no answer".to_owned() };
    let (ours, theirs) = (by_labels(ours), by_labels(theirs));
    if ours.len() != theirs.len() {
        return format!("{} series instead of {}", ours.len(), theirs.len());
    }
    let odd = ours.iter().filter(|(labels, points)| theirs.get(*labels).is_none_or(|other| !same(points, other)));
    match odd.count() {
        0 => "yes".to_owned(),
        odd => format!("{odd} differ"),
    }
}

fn result(body: &str) -> Option<Vec<Value>> {
    let mut answer: Value = serde_json::from_str(body).ok()?;
    let data = answer["data"].take();
    let list = if data.is_object() { data["result"].clone() } else { data };
    list.as_array().cloned()
}

/// Points by the text of their labels; names and label sets have none.
fn by_labels(result: Vec<Value>) -> BTreeMap<String, Vec<Value>> {
    let entry = |entry: Value| match (entry["values"].as_array(), entry["value"].as_array()) {
        (Some(points), _) => (entry["metric"].to_string(), points.clone()),
        (_, Some(_)) => (entry["metric"].to_string(), vec![entry["value"].clone()]),
        _ => (entry.to_string(), Vec::new()),
    };
    result.into_iter().map(entry).collect()
}

fn same(ours: &[Value], theirs: &[Value]) -> bool {
    let close = |(a, b): (&Value, &Value)| {
        let number = |point: &Value| point[1].as_str().and_then(|text| text.parse::<f64>().ok());
        let near = |a: f64, b: f64| a == b || (a - b).abs() <= RELATIVE * a.abs().max(b.abs());
        a[0].as_f64() == b[0].as_f64() && number(a).zip(number(b)).is_some_and(|(a, b)| near(a, b))
    };
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_is_seen_and_order_is_not() {
        let answer = |first: &str, second: &str| {
            format!(
                r#"{{"data":{{"result":[{{"metric":{{"a":"{first}"}},"value":[1,"2"]}},{{"metric":{{"a":"{second}"}},"value":[1,"2"]}}]}}}}"#
            )
        };
        assert_eq!(verdict(&answer("x", "y"), &answer("y", "x")), "yes");
        assert_eq!(verdict(&answer("x", "y"), &answer("y", "x").replacen("\"2\"", "\"2.001\"", 1)), "1 differ");
        assert_eq!(verdict(&answer("x", "y"), &answer("x", "x")), "2 series instead of 1");
        assert_eq!(series(&answer("x", "y")), "2");
    }
}
