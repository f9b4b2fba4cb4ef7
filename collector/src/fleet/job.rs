//! What an agent gathers for: `node`, `mysql`, and of several database servers which one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A job, at the agent's own instance or at one that its groups name. Written as a bare name, or with the instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Job {
    pub name: String,
    /// `None`: the agent's own.
    pub instance: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Own(String),
    At { job: String, instance: String },
}

impl Job {
    pub fn at(name: &str, instance: Option<&str>) -> Self {
        Self { name: name.to_owned(), instance: instance.map(str::to_owned) }
    }
}

impl From<Written> for Job {
    fn from(written: Written) -> Self {
        match written {
            Written::Own(name) => Self { name, instance: None },
            Written::At { job, instance } => Self { name: job, instance: Some(instance) },
        }
    }
}

impl From<Job> for Written {
    fn from(job: Job) -> Self {
        match job.instance {
            None => Self::Own(job.name),
            Some(instance) => Self::At { job: job.name, instance },
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            None => out.write_str(&self.name),
            Some(instance) => write!(out, "{} at {instance}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_written_as_before_unless_they_have_an_instance() {
        let jobs = [Job::at("node", None), Job::at("mysql", Some("db1:3307"))];
        let text = serde_json::to_string(&jobs).unwrap();
        assert_eq!(text, r#"["node",{"job":"mysql","instance":"db1:3307"}]"#);
        assert_eq!(serde_json::from_str::<Vec<Job>>(&text).unwrap(), jobs);
    }
}
