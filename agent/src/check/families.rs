//! Which families a module tells, in as few words as say it.

use crate::module::Module;
use crate::modules::mysql::OTHER_OBJECTS;

/// The name of a module's only family, or what all its names begin with and an asterisk.
pub fn of(name: &str, module: &dyn Module) -> String {
    match name {
        // The server decides what these are called beyond that.
        "mysql.replication" => return "mysql_slave_status_*".to_owned(),
        "mysql.innodb_metrics" => return "mysql_info_schema_innodb_metrics_*".to_owned(),
        _ => {}
    }
    let descs = module.descs();
    let names: Vec<&str> = descs.iter().map(|desc| &*desc.name).filter(|name| *name != OTHER_OBJECTS.name).collect();
    summary(&names)
}

fn summary(names: &[&str]) -> String {
    let Some((first, others)) = names.split_first() else { return String::new() };
    let shared = others.iter().fold(first.len(), |shared, name| {
        first.bytes().zip(name.bytes()).take(shared).take_while(|(one, other)| one == other).count()
    });
    match first[..shared].rfind('_') {
        _ if others.iter().all(|name| name == first) => (*first).to_owned(),
        Some(end) => format!("{}_*", &first[..end]),
        None => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_what_they_share() {
        for (names, told) in [
            (&[][..], ""),
            (&["mysql_up"], "mysql_up"),
            (&["mysql_a_x", "mysql_a_x"], "mysql_a_x"),
            (&["mysql_a_bx", "mysql_a_by", "mysql_a_c"], "mysql_a_*"),
            (&["mysql_heartbeat_now", "mysql_heartbeat_now_stored"], "mysql_heartbeat_*"),
            (&["one", "other"], "one other"),
        ] {
            assert_eq!(summary(names), told);
        }
    }
}
