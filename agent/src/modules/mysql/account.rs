//! `user@host`, as GRANT and the server name an account.

use std::fmt;

/// `user@host` as grants name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    user: String,
    host: String,
}

impl Account {
    pub fn new(user: &str, host: &str) -> Self {
        Self { user: user.to_owned(), host: host.to_owned() }
    }

    /// Whether it is the one that other accounts are made with.
    pub fn is_administrator(&self) -> bool {
        self.user == "root"
    }

    /// What CURRENT_USER() says: the last `@` parts user and host.
    pub fn parse(text: &str) -> Self {
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        Self::new(user, host)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", quoted(&self.user), quoted(&self.host))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_quoted_as_the_server_found_it() {
        assert_eq!(Account::parse("o'brien@db@10.0.0.%").to_string(), "'o''brien@db'@'10.0.0.%'");
    }
}
