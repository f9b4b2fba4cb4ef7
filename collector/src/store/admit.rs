//! Which new series are taken (rule 14): form of the labels, how many there are, and how many came in this minute.
//!
//! Agents are counted one by one, foreign writers by their kind, so that a flood of one never takes the room of another.
//! Live series are counted anew once a minute; those that ended long ago count only among all that are known. The
//! collector's own series are always taken: their number follows from that of the agents.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::{FORGOTTEN, Group};
use super::{AgentId, GroupKey, METRIC_NAME, Refused, SeriesKey, WriteMode};
use crate::limits::Limits;

const MINUTE_MS: i64 = 60_000;

/// Who brings series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Account {
    Agent(AgentId),
    /// Remote writers, plain pushers, ...: the first word of the names of their groups.
    Writer(Arc<str>),
    Own,
}

/// Who has no id of its own: the collector, and whoever states samples without being an agent.
const NOBODY: AgentId = AgentId([0; 16]);

/// Whether a group is the collector's own.
pub(super) fn is_own(key: &GroupKey, mode: WriteMode) -> bool {
    key.agent == NOBODY && mode == WriteMode::Delta
}

impl Account {
    fn of(key: &GroupKey, mode: WriteMode) -> Self {
        match mode {
            _ if is_own(key, mode) => Self::Own,
            _ if key.agent != NOBODY => Self::Agent(key.agent),
            _ => Self::Writer(key.name.split(' ').next().unwrap_or_default().into()),
        }
    }
}

/// Groups and series of one account, now and in this minute.
#[derive(Debug, Default)]
struct Count {
    live: usize,
    groups: usize,
    new: PerMinute,
}

#[derive(Debug, Default)]
struct PerMinute {
    minute: i64,
    count: usize,
}

impl PerMinute {
    fn at(&mut self, now_ms: i64) -> &mut usize {
        let minute = now_ms.div_euclid(MINUTE_MS);
        if self.minute != minute {
            *self = Self { minute, count: 0 };
        }
        &mut self.count
    }
}

#[derive(Debug, Default)]
pub(super) struct Admission {
    accounts: HashMap<Account, Count>,
    new: PerMinute,
}

impl Admission {
    /// Takes one more series of a group, or says why not. `known` is the number of all series.
    pub fn admit(
        &mut self,
        limits: &Limits,
        group: (&GroupKey, WriteMode),
        key: &SeriesKey,
        known: usize,
        now_ms: i64,
    ) -> Result<(), Refused> {
        check_labels(limits, key)?;
        let account = Account::of(group.0, group.1);
        let (live_most, new_most, whose) = match &account {
            Account::Agent(_) => (limits.series_per_agent, limits.new_series_per_agent, "agent"),
            Account::Writer(_) => (limits.series_per_writer, limits.new_series_per_writer, "writer"),
            Account::Own => return Ok(()),
        };
        let count = self.accounts.entry(account).or_default();
        let (new, new_in_all) = (count.new.at(now_ms), self.new.at(now_ms));
        let over = |reason: String| {
            let (series, reason) = (key.labels.to_string(), format!("{reason}; drop labels that vary, or raise it"));
            Refused::Limit { series, reason }
        };
        let too_fast = |reason: String| {
            let reason = format!("{reason}; it is taken later, if labels that vary do not use that up too");
            Refused::Rate { series: key.labels.to_string(), reason }
        };
        if known >= limits.series {
            return Err(over(format!("all series together are at --limit-series, {}", limits.series)));
        }
        if count.live >= live_most {
            return Err(over(format!("the {whose} is at --limit-series-per-{whose}, {live_most}")));
        }
        if *new >= new_most {
            return Err(too_fast(format!("the {whose} is at --limit-new-series-per-{whose}, {new_most} in a minute")));
        }
        if *new_in_all >= limits.new_series_per_minute {
            let most = limits.new_series_per_minute;
            return Err(too_fast(format!("all together are at --limit-new-series-per-minute, {most}")));
        }
        count.live += 1;
        *new += 1;
        *new_in_all += 1;
        Ok(())
    }

    /// Takes one more group, or says why not. Its number is given out once and for all, so that this limit is for longer.
    pub fn admit_group(&mut self, limits: &Limits, key: &GroupKey, mode: WriteMode) -> Result<(), Refused> {
        let account = Account::of(key, mode);
        let (most, whose) = match &account {
            Account::Agent(_) => (limits.groups_per_agent, "agent"),
            Account::Writer(_) => (limits.groups_per_writer, "writer"),
            Account::Own => return Ok(()),
        };
        let count = self.accounts.entry(account).or_default();
        if count.groups >= most {
            let reason = format!("the {whose} is at --limit-groups-per-{whose}, {most}; use fewer names, or raise it");
            return Err(Refused::Limit { series: format!("group {}", key.name), reason });
        }
        count.groups += 1;
        Ok(())
    }

    /// Takes over what [`count_live`] found.
    pub fn set_live(&mut self, Live(found): Live) {
        self.accounts.values_mut().for_each(|count| (count.live, count.groups) = (0, 0));
        for (account, (live, groups)) in found {
            let count = self.accounts.entry(account).or_default();
            (count.live, count.groups) = (live, groups);
        }
        self.accounts.retain(|_, count| count.live > 0 || count.groups > 0);
    }
}

/// Live series and groups by account.
pub(super) struct Live(HashMap<Account, (usize, usize)>);

/// Counts the series with a sample, or newly defined, at `since_ms` or later. It takes the groups' locks one by one, which
/// those who define series hold when they ask for admission: so it must not be called with [`Admission`] locked. A group counts
/// until the last of its series is forgotten.
pub(super) fn count_live(groups: &[Arc<Group>], since_ms: i64) -> Live {
    let mut found: HashMap<Account, (usize, usize)> = HashMap::new();
    for group in groups {
        let state = group.state.lock();
        let slots = state.series.iter().zip(&state.seen_ms);
        let live = slots.filter(|(series, seen_ms)| **series != FORGOTTEN && **seen_ms >= since_ms).count();
        let counts = state.series.is_empty() || state.series.iter().any(|series| *series != FORGOTTEN);
        drop(state);
        if counts {
            let count = found.entry(Account::of(&group.key, group.mode)).or_default();
            *count = (count.0 + live, count.1 + 1);
        }
    }
    Live(found)
}

fn check_labels(limits: &Limits, key: &SeriesKey) -> Result<(), Refused> {
    let labels = &key.labels;
    let long = |text: &str, most: usize| text.len() > most;
    let long = labels
        .iter()
        .find(|label| long(&label.name, limits.label_name_bytes) || long(&label.value, limits.label_value_bytes));
    if let Some(label) = long {
        let name: String = label.name.chars().take(64).collect();
        let (name_most, value_most) = (limits.label_name_bytes, limits.label_value_bytes);
        return Err(Refused::Invalid(format!(
            "label {name:?} is longer than {name_most} bytes, or its value than {value_most}; shorten it"
        )));
    }
    let too_long = |text: &str| text.len() > limits.label_value_bytes;
    if key.meta.as_ref().is_some_and(|meta| too_long(&meta.help) || too_long(&meta.unit)) {
        let most = limits.label_value_bytes;
        return Err(Refused::Invalid(format!("help or unit of {labels} is longer than {most} bytes; shorten it")));
    }
    // The metric's name is no label of those that are limited.
    if labels.len() > limits.labels_per_series.saturating_add(1) {
        return Err(Refused::Invalid(format!("{labels} has more than {} labels; drop some", limits.labels_per_series)));
    }
    if labels.metric().is_none() {
        return Err(Refused::Invalid(format!("{labels} has no metric name; give it label {METRIC_NAME}")));
    }
    if labels.iter().any(|label| label.name.is_empty() || label.name.contains('\0')) {
        return Err(Refused::Invalid(format!("{labels} has a label without a name; name it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Labels;

    const NAME: (&str, &str) = (METRIC_NAME, "up");

    struct Admit(Admission, Limits);

    impl Admit {
        /// One more series: `agent` 0 is nobody, then the name of the group tells who writes.
        fn one(&mut self, agent: u8, name: &str, pairs: &[(&str, &str)], now_ms: i64) -> Result<(), String> {
            let key = SeriesKey { labels: Labels::from_pairs(pairs.iter().copied()), meta: None };
            let group = GroupKey { agent: AgentId([agent; 16]), name: name.into() };
            let mode = if name.contains(' ') { WriteMode::Stated } else { WriteMode::Delta };
            self.0.admit(&self.1, (&group, mode), &key, 0, now_ms).map_err(|refused| refused.to_string())
        }
    }

    fn admit(limits: Limits) -> Admit {
        Admit(Admission::default(), limits)
    }

    #[test]
    fn labels_without_form_are_refused_with_the_way_out() {
        let limits = Limits { labels_per_series: 1, label_name_bytes: 8, label_value_bytes: 8, ..Limits::default() };
        let mut admit = admit(limits);
        for (pairs, part) in [
            (&[("a", "b")][..], "no metric name"),
            (&[NAME, ("a", "b"), ("c", "d")], "more than 1 labels"),
            (&[NAME, ("a", "123456789")], "its value than 8"),
            (&[NAME, ("a\0", "1")], "without a name"),
        ] {
            let message = admit.one(1, "cpu", pairs, 0).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn each_account_has_a_limit_of_its_own() {
        let limits = Limits { series_per_agent: 2, series_per_writer: 1, ..Limits::default() };
        let mut admit = admit(limits);
        assert!(admit.one(1, "cpu", &[NAME], 0).is_ok() && admit.one(1, "mem", &[NAME], 0).is_ok());
        let message = admit.one(1, "net", &[NAME], 0).unwrap_err();
        assert!(message.contains("up{}: the agent is at --limit-series-per-agent, 2"), "{message}");
        assert!(admit.one(2, "cpu", &[NAME], 0).is_ok(), "another agent");
        assert!(admit.one(0, "remote_write a/b", &[NAME], 0).is_ok());
        assert!(admit.one(0, "remote_write c/d", &[NAME], 0).unwrap_err().contains("--limit-series-per-writer, 1"));
        assert!(admit.one(0, "push c/d", &[NAME], 0).is_ok(), "another kind of writer");
        for _ in 0..10 {
            assert!(admit.one(0, "lampad.collector", &[NAME], 0).is_ok(), "our own are always taken");
        }
    }

    #[test]
    fn groups_are_counted_until_their_last_series_is_forgotten() {
        let limits = Limits { groups_per_agent: 2, groups_per_writer: 1, ..Limits::default() };
        let key = |agent: u8, name: &str| GroupKey { agent: AgentId([agent; 16]), name: name.into() };
        let mut admission = Admission::default();
        let define = |admission: &mut Admission, agent: u8, name: &str, mode: WriteMode| {
            admission.admit_group(&limits, &key(agent, name), mode).map_err(|refused| refused.to_string())
        };
        for (agent, name, mode, refused) in [
            (1, "cpu", WriteMode::Delta, ""),
            (1, "mem", WriteMode::Delta, ""),
            (1, "net", WriteMode::Delta, "group net: the agent is at --limit-groups-per-agent, 2"),
            (2, "cpu", WriteMode::Delta, ""),
            (0, "push a/b", WriteMode::Stated, ""),
            (0, "push c/d", WriteMode::Stated, "--limit-groups-per-writer, 1"),
            (0, "remote_write c/d", WriteMode::Stated, ""),
            (0, "up", WriteMode::Delta, ""),
        ] {
            let defined = define(&mut admission, agent, name, mode);
            assert!(defined.clone().err().unwrap_or_default().contains(refused), "{name}: {defined:?}");
            assert_eq!(defined.is_ok(), refused.is_empty(), "{name}");
        }
        let group = |name: &str, series: &[u32]| {
            let mut state = crate::store::group::State::new();
            series.iter().for_each(|series| state.add_slot(*series, 0));
            let (id, key, state) = (crate::store::GroupId(0), key(1, name), parking_lot::Mutex::new(state));
            Arc::new(Group { id, key, mode: WriteMode::Delta, state })
        };
        admission.set_live(count_live(&[group("cpu", &[FORGOTTEN, 3]), group("mem", &[FORGOTTEN])], 0));
        assert!(define(&mut admission, 1, "net", WriteMode::Delta).is_ok());
        assert!(define(&mut admission, 1, "disk", WriteMode::Delta).is_err());
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let mut admit = admit(Limits { series: 5, new_series_per_minute: 2, ..Limits::default() });
        let group = GroupKey { agent: AgentId([1; 16]), name: "cpu".into() };
        let key = SeriesKey { labels: Labels::from_pairs([NAME]), meta: None };
        let refused = admit.0.admit(&admit.1, (&group, WriteMode::Delta), &key, 5, 0).unwrap_err();
        assert!(matches!(&refused, Refused::Limit { reason, .. } if reason.contains("--limit-series, 5")), "{refused}");
        assert!(admit.one(1, "cpu", &[NAME], 0).is_ok() && admit.one(2, "cpu", &[NAME], 0).is_ok());
        assert!(admit.one(3, "cpu", &[NAME], 0).unwrap_err().contains("--limit-new-series-per-minute, 2"));
        assert!(admit.one(3, "cpu", &[NAME], MINUTE_MS).is_ok());
    }

    /// By default an agent's start brings all its series at once; labels that vary bring new ones minute by minute.
    #[test]
    fn a_start_is_within_the_new_series_of_a_minute_and_a_flood_is_not() {
        let mut admit = admit(Limits::default());
        let start = (0..5_000).all(|_| admit.one(1, "mysql.status", &[NAME], 0).is_ok());
        assert!(start, "three times what host and MySQL modules make together");
        let flood = (0..1_000_000).position(|_| admit.one(1, "mysql.digest", &[NAME], 1).is_err());
        assert_eq!(flood, Some(15_000));
        assert!(admit.one(1, "mysql.digest", &[NAME], 2).unwrap_err().contains("--limit-new-series-per-agent, 20000"));
        assert!(admit.one(1, "mysql.digest", &[NAME], MINUTE_MS).is_ok(), "a minute later");
        assert!(admit.one(2, "mysql.status", &[NAME], 1).is_ok(), "others are not hit");
    }
}
