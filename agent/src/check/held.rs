//! What an account holds beyond its needs, out of SHOW GRANTS.
//!
//! Roles are left alone: what they give cannot be told from the account's own grants, and others use them too.

use crate::modules::mysql::Account;

/// `GRANT privileges ON target TO account`, as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub privileges: Vec<String>,
    /// Without quotes: `*.*`, `mysql.user`.
    pub target: String,
    pub grant_option: bool,
}

/// `None` for a role, for PROXY and for USAGE, which is nothing.
pub fn parse(line: &str) -> Option<Held> {
    let rest = line.strip_prefix("GRANT ")?;
    let (privileges, rest) = rest.split_once(" ON ")?;
    let (target, rest) = rest.split_once(" TO ")?;
    if matches!(privileges, "USAGE" | "PROXY") {
        return None;
    }
    let target = target.strip_prefix("TABLE ").unwrap_or(target).replace('`', "");
    Some(Held { privileges: parts(privileges), target, grant_option: rest.ends_with(" WITH GRANT OPTION") })
}

/// Parted by commas outside of parentheses: `SELECT (a, b), INSERT`.
fn parts(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in list.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

/// Servers have two names for some rights.
fn same(held: &str, needed: &str) -> bool {
    let plain =
        |name: &str| name.replace("REPLICA MONITOR", "SLAVE MONITOR").replace("REPLICATION CLIENT", "BINLOG MONITOR");
    plain(held) == plain(needed)
}

/// Whether it is simpler and surer to begin anew: MySQL does not take away what an account could pass on one by one.
fn holds_everything(held: &[Held]) -> bool {
    held.iter().any(|held| {
        held.target == "*.*" && (held.grant_option || held.privileges.iter().any(|name| name == "ALL PRIVILEGES"))
    })
}

/// The statements that take away what is not `needed`, as (privilege, target without quotes).
pub fn revokes(held: &[Held], needed: &[(&str, String)], account: &Account) -> Vec<String> {
    if holds_everything(held) {
        return vec![format!("REVOKE ALL PRIVILEGES, GRANT OPTION FROM {account};")];
    }
    let mut statements = Vec::new();
    for held in held {
        let is_needed =
            |name: &String| needed.iter().any(|(privilege, target)| same(name, privilege) && *target == held.target);
        let extra: Vec<&str> = held.privileges.iter().filter(|name| !is_needed(name)).map(String::as_str).collect();
        let target = quoted(&held.target);
        if !extra.is_empty() {
            statements.push(format!("REVOKE {} ON {target} FROM {account};", extra.join(", ")));
        }
        if held.grant_option {
            statements.push(format!("REVOKE GRANT OPTION ON {target} FROM {account};"));
        }
    }
    statements
}

/// Of `needed` those that the account does not hold by name: what implied them may just have been taken away.
pub fn not_by_name<'a>(held: &[Held], needed: &'a [(&'a str, String)]) -> impl Iterator<Item = &'a (&'a str, String)> {
    let anew = holds_everything(held);
    needed.iter().filter(move |(privilege, target)| {
        anew || !held
            .iter()
            .any(|held| held.target == *target && held.privileges.iter().any(|name| same(name, privilege)))
    })
}

fn quoted(target: &str) -> String {
    let (database, table) = target.split_once('.').unwrap_or((target, "*"));
    let part = |name: &str| if name == "*" { name.to_owned() } else { format!("`{name}`") };
    format!("{}.{}", part(database), part(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::new("lampad", "localhost")
    }

    #[test]
    fn lines_of_servers_are_understood() {
        let held = |line: &str| parse(line).map(|held| (held.privileges.join("|"), held.target, held.grant_option));
        for (line, expected) in [
            ("GRANT USAGE ON *.* TO `a`@`b` IDENTIFIED BY PASSWORD '*1'", None),
            ("GRANT `r`@`%` TO `a`@`b`", None),
            ("GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION", None),
            ("GRANT PROCESS, SLAVE MONITOR ON *.* TO `a`@`b`", Some(("PROCESS|SLAVE MONITOR", "*.*", false))),
            ("GRANT SELECT (x, y), INSERT ON `d`.`t` TO `a`@`b`", Some(("SELECT (x, y)|INSERT", "d.t", false))),
            ("GRANT ALL PRIVILEGES ON `d`.* TO `a`@`b` WITH GRANT OPTION", Some(("ALL PRIVILEGES", "d.*", true))),
        ] {
            let expected = expected.map(|(list, target, option)| (list.to_owned(), target.to_owned(), option));
            assert_eq!(held(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_needed_goes_and_what_it_implied_comes() {
        let lines =
            ["GRANT SELECT, PROCESS, REPLICATION CLIENT ON *.* TO `l`@`h`", "GRANT ALL PRIVILEGES ON `d`.* TO `l`@`h`"];
        let held: Vec<Held> = lines.iter().filter_map(|line| parse(line)).collect();
        let needed =
            [("PROCESS", "*.*".into()), ("BINLOG MONITOR", "*.*".into()), ("SELECT", "performance_schema.*".into())];
        assert_eq!(
            revokes(&held, &needed, &account()),
            [
                "REVOKE SELECT ON *.* FROM 'lampad'@'localhost';",
                "REVOKE ALL PRIVILEGES ON `d`.* FROM 'lampad'@'localhost';",
            ]
        );
        let by_name: Vec<_> = not_by_name(&held, &needed).collect();
        assert_eq!(by_name, [&("SELECT", "performance_schema.*".to_owned())]);
        let all = parse("GRANT PROCESS ON *.* TO `l`@`h` WITH GRANT OPTION").unwrap();
        assert_eq!(
            revokes(std::slice::from_ref(&all), &needed, &account()),
            ["REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'lampad'@'localhost';"]
        );
        assert_eq!(not_by_name(&[all], &needed).count(), needed.len(), "each is granted again");
    }
}
