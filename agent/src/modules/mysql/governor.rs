//! What the agent costs the database, and how it stays within its share.
//!
//! All modules together may take [`SHARE`] of one core, and the vital signs as much of their own. What a module takes is what
//! its last [`COSTS`] reads cost over its interval. A read costs the CPU time of the server's thread, as the kernel counts it,
//! and the mean holds. Where that thread cannot be seen, each statement costs the time from its sending to its answer, which
//! is at least what it took inside the server; a busy machine makes that longer and never shorter, so the least holds.
//!
//! * Vital signs that would be dearer are read at twice or four times their interval, but at least every second.
//! * Of the others the cheapest go first. Those that fit run at their interval; the first that does not runs as often as what
//!   is left allows; for dearer ones nothing is left. None is held back for more than ten times its interval: what is dearest
//!   on a server in trouble, such as its status, is what one wants to see then.
//!
//! A read that is held is no failure and no tick; it is counted.

mod books;
mod meter;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::books::Books;
pub use self::meter::Meter;
use super::session::Session;
use crate::module::{Desc, Module, ModuleError, Tier};
use crate::schedule::Schedule;
use crate::tick::Tick;

/// Of one core: ten milliseconds a second.
pub const SHARE: f64 = 0.01;
/// Vital signs go back to a shorter interval only when they would take this little of their share there.
const SHARE_TO_GO_BACK: f64 = 0.7 * SHARE;
/// Vital signs are never read less often than this.
const VITAL_MOST: Duration = Duration::from_secs(1);
/// A module for which nothing is left is still read once in this many of its intervals.
const HELD_MOST: f64 = 10.0;
/// Reads whose cost is remembered: enough that one of them was not disturbed on a busy machine.
const COSTS: usize = 8;

#[derive(Debug, Default)]
pub struct Governor(Mutex<BTreeMap<&'static str, Account>>);

/// A module's book.
#[derive(Debug, Clone)]
pub struct Account {
    vital: bool,
    /// As the sampler asks, in seconds.
    interval: f64,
    /// As it is now, in seconds.
    pub in_force: f64,
    costs: VecDeque<f64>,
    /// They are the server's own time, not ours.
    exact: bool,
    /// What the server's thread has spent since the last read began.
    open: f64,
    asked: Option<Instant>,
    ran: Option<Instant>,
    pub spent: f64,
    pub held: u64,
}

impl Governor {
    /// Whether a module may be read now.
    pub fn admit(&self, name: &'static str, tier: Tier, now: Instant) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(name).or_insert_with(|| Account::new(tier));
        if let Some(before) = account.asked.replace(now) {
            // The configuration may have another interval than the tier has.
            let gap = (now - before).as_secs_f64();
            account.interval += 0.5 * (gap - account.interval);
        }
        let left = left_for(&accounts, name);
        let Some(account) = accounts.get_mut(name) else { return true };
        account.in_force = account.allowed(left);
        // A tick that comes a little early is the one that was meant.
        let due = account.in_force - account.interval / 2.0;
        let admitted = account.ran.is_none_or(|ran| (now - ran).as_secs_f64() >= due);
        match admitted {
            true => {
                account.ran = Some(now);
                account.close();
            }
            false => account.held += 1,
        }
        admitted
    }

    /// What a read has taken, by the time to its answers.
    pub fn settle(&self, name: &'static str, took: f64) {
        if let Some(account) = self.lock().get_mut(name) {
            account.spent += took;
            account.exact = false;
            account.remember(took);
        }
    }

    /// What the server's thread has spent on a statement. It is known when the next one begins, whosever that is.
    pub fn charge(&self, name: &'static str, spent: Duration) {
        if let Some(account) = self.lock().get_mut(name) {
            let spent = spent.as_secs_f64();
            account.spent += spent;
            account.open += spent;
        }
    }

    pub fn accounts(&self) -> Vec<(&'static str, Account)> {
        self.lock().iter().map(|(name, account)| (*name, account.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share that modules of the same kind which are cheaper leave to this one.
fn left_for(accounts: &BTreeMap<&'static str, Account>, name: &str) -> f64 {
    let Some(own) = accounts.get(name) else { return SHARE };
    let cheaper = accounts
        .iter()
        .filter(|(other, account)| account.vital == own.vital && (account.load(), **other) < (own.load(), name));
    SHARE - cheaper.map(|(_, account)| account.load()).sum::<f64>()
}

impl Account {
    fn new(tier: Tier) -> Self {
        let interval = Schedule::of(tier).interval.as_secs_f64();
        Self {
            vital: tier == Tier::Vital,
            interval,
            in_force: interval,
            costs: VecDeque::new(),
            exact: false,
            open: 0.0,
            asked: None,
            ran: None,
            spent: 0.0,
            held: 0,
        }
    }

    fn remember(&mut self, cost: f64) {
        self.costs.truncate(COSTS - 1);
        self.costs.push_front(cost);
    }

    /// A read begins, so what the server has spent belongs to those before.
    fn close(&mut self) {
        let spent = std::mem::take(&mut self.open);
        if spent > 0.0 {
            if !std::mem::replace(&mut self.exact, true) {
                self.costs.clear();
            }
            self.remember(spent);
        }
    }

    fn cost(&self) -> f64 {
        match self.exact {
            true => self.costs.iter().sum::<f64>() / self.costs.len().max(1) as f64,
            false => self.costs.iter().copied().reduce(f64::min).unwrap_or(0.0),
        }
    }

    /// Share of a core at the interval that is asked for.
    fn load(&self) -> f64 {
        self.cost() / self.interval.max(1e-3)
    }

    /// The interval that this much of a core allows.
    fn allowed(&self, left: f64) -> f64 {
        if self.vital {
            return self.allowed_vital();
        }
        let most = HELD_MOST * self.interval;
        if self.load() <= left {
            self.interval
        } else if left <= 0.0 {
            most
        } else {
            (self.cost() / left).min(most)
        }
    }

    fn allowed_vital(&self) -> f64 {
        let most = VITAL_MOST.as_secs_f64().max(self.interval);
        let steps = [1.0, 2.0, 4.0].map(|factor| (factor * self.interval).min(most));
        let fits = |interval: f64| {
            let back = interval < 0.9 * self.in_force;
            self.cost() / interval <= if back { SHARE_TO_GO_BACK } else { SHARE }
        };
        steps.into_iter().find(|interval| fits(*interval)).unwrap_or(most)
    }
}

/// A module whose reads the governor admits and counts.
pub struct Governed {
    pub module: Box<dyn Module>,
    pub session: Arc<Session>,
    pub name: &'static str,
    pub tier: Tier,
}

#[async_trait]
impl Module for Governed {
    fn descs(&self) -> Vec<Desc> {
        self.module.descs()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let governor = self.session.governor();
        if !governor.admit(self.name, self.tier, Instant::now()) {
            return Err(ModuleError::Held);
        }
        let meter = Meter::new(self.name);
        let charge = Charge { session: &self.session, meter: meter.clone(), begun: Instant::now() };
        let sampled = meter.scope(self.module.sample(out)).await;
        drop(charge);
        sampled
    }
}

/// Charges for a read at its end, also for one that is given up at its deadline.
struct Charge<'a> {
    session: &'a Session,
    meter: Arc<Meter>,
    begun: Instant,
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let took = self.meter.settle(self.begun.elapsed()).filter(|took| !took.is_zero());
        if let Some(took) = took {
            self.session.governor().settle(self.meter.module, took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads each module at its interval for `seconds`, at the costs given; returns reads by module.
    async fn run(
        governor: &Governor,
        modules: &[(&'static str, Tier, f64)],
        seconds: u64,
    ) -> BTreeMap<&'static str, u64> {
        let mut reads = BTreeMap::new();
        for quarter in 0..seconds * 4 {
            tokio::time::advance(Duration::from_millis(250)).await;
            let now = Instant::now();
            for (name, tier, cost) in modules {
                let every = Schedule::of(*tier).interval.as_millis() as u64 / 250;
                if quarter % every == 0 && governor.admit(name, *tier, now) {
                    governor.settle(name, *cost);
                    *reads.entry(*name).or_default() += 1;
                }
            }
        }
        reads
    }

    #[tokio::test(start_paused = true)]
    async fn what_fits_runs_at_its_interval() {
        let reads = run(
            &Governor::default(),
            &[("status", Tier::Standard, 0.003), ("tables", Tier::Rare, 0.2), ("vital", Tier::Vital, 0.002)],
            600,
        )
        .await;
        assert_eq!(reads, BTreeMap::from([("status", 600), ("tables", 10), ("vital", 2400)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_dearest_goes_first_and_the_share_is_kept() {
        let governor = Governor::default();
        let modules = [
            ("status", Tier::Standard, 0.004),
            ("processlist", Tier::Heavy, 0.03),
            ("digests", Tier::Heavy, 0.06),
            ("tables", Tier::Rare, 2.0),
        ];
        let reads = run(&governor, &modules, 3600).await;
        assert_eq!((reads["status"], reads["processlist"]), (3600, 360), "what is cheap is not touched");
        // 0.4 % and 0.3 % are taken, so 0.3 % are left for what asks for 0.6 %.
        assert!((170..=190).contains(&reads["digests"]), "{reads:?}");
        assert!((6..=8).contains(&reads["tables"]), "nothing is left for the dearest: {reads:?}");
        let spent: f64 = governor.accounts().iter().map(|(_, account)| account.spent).sum();
        let tries = reads["tables"] as f64 * 2.0;
        assert!((spent - tries) / 3600.0 <= SHARE * 1.01, "{spent} s in an hour");
        let held: BTreeMap<_, _> =
            governor.accounts().into_iter().map(|(name, account)| (name, account.held)).collect();
        assert_eq!((held["status"], held["tables"] + reads["tables"]), (0, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn vital_signs_widen_in_steps_and_come_back() {
        let governor = Governor::default();
        for (cost, reads_in_a_minute) in
            [(0.001, 240), (0.004, 120), (0.009, 60), (0.5, 60), (0.003, 120), (0.001, 240)]
        {
            run(&governor, &[("vital", Tier::Vital, cost)], 20).await;
            let reads = run(&governor, &[("vital", Tier::Vital, cost)], 60).await["vital"];
            assert!(reads.abs_diff(reads_in_a_minute) <= 3, "{cost} s each: {reads}");
        }
    }

    /// Charged as the session does it: what a read has cost is known when the next statement begins.
    #[tokio::test(start_paused = true)]
    async fn what_the_server_has_spent_counts_by_its_mean() {
        let governor = Governor::default();
        let mut reads = Vec::new();
        for (cost, seconds) in [([0.004, 0.012], 100), ([0.010, 0.030], 100), ([0.001, 0.001], 100)] {
            let mut admitted = 0;
            for _ in 0..seconds {
                tokio::time::advance(Duration::from_secs(1)).await;
                if governor.admit("status", Tier::Standard, Instant::now()) {
                    governor.charge("status", Duration::from_secs_f64(cost[admitted % 2]));
                    admitted += 1;
                }
            }
            reads.push(admitted);
        }
        // A mean of 0.8 % fits, one of 2 % does so every other time.
        assert_eq!(reads[0], 100);
        assert!((45..=60).contains(&reads[1]), "{reads:?}");
        assert!(reads[2] > 90, "{reads:?}");
        let spent = governor.accounts()[0].1.spent;
        assert!((spent - (0.8 + 0.02 * reads[1] as f64 + 0.001 * reads[2] as f64)).abs() < 0.03, "{spent}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_read_is_not_taken_for_the_cost() {
        let governor = Governor::default();
        run(&governor, &[("status", Tier::Standard, 0.003)], 10).await;
        governor.settle("status", 1.0);
        assert_eq!(run(&governor, &[("status", Tier::Standard, 0.003)], 10).await["status"], 10);
    }
}
