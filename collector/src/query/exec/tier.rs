//! Answers from tiers: where windows give what samples would, they are read instead of them; where samples are gone, what
//! windows can tell is told, with a remark if it is not the very answer.
//!
//! * **Exact**: the function has a form on windows, and the ends of all ranges lie on their grid (or raw samples are there to
//!   cut the first and the last window, where all steps look at one range). Of times from which raw samples are kept this is
//!   used where range and step are five windows or more, to read less; of older times always, without a remark.
//! * **Shifted**: ranges of older times that are whole windows long and lie askew are moved back to the grid, with a remark.
//! * **Ends**: an instant selector sees the first and the last sample of each window, with a remark.
//! * Everything else sees no older samples, with a remark.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::query::QueryError;
use crate::query::functions::{Function, OverWindows, Stretch, over_windows, overflows};
use crate::query::plan::{Edges, Expr, Place, Selector};
use crate::query::value::{Row, Steps, absent};
use crate::store::{Labels, Reach, Series, TierReach, WindowSeries};

use super::selector::{Ends, map_rows};
use super::{Eval, Here};

/// Windows in a range and in a step from which on a tier is read though raw samples are there.
const WINDOWS_MIN: i64 = 5;

/// A range over windows.
struct Over<'a> {
    name: &'a str,
    body: OverWindows,
    selector: &'a Selector,
    ends: Ends,
    range_ms: i64,
    tier: TierReach,
    /// Ranges end at the grid's last edge before they should.
    shifted: bool,
}

type Raw<'a> = &'a dyn Fn(Steps) -> Result<Vec<Row>, QueryError>;

impl Eval<'_> {
    /// Rows of a function over a range out of a tier, under their own labels; `None` where raw samples are to be read.
    pub fn by_tier(
        &self,
        function: &Function,
        range: &Expr,
        steps: Steps,
        here: Here<'_>,
        raw: Raw<'_>,
    ) -> Result<Option<Vec<Row>>, QueryError> {
        let Expr::Range { selector, range } = range.without_parens() else { return Ok(None) };
        let Some(body) = over_windows(function.name).filter(|_| selector.edges == Edges::Plain) else {
            return Ok(None);
        };
        let reach = self.source.reach();
        let (ends, range_ms) = (self.ends(&selector.shift)?, self.positive_ms(range)?);
        let (first_ms, last_ms) = ends.span(steps);
        let ask = Ask {
            from_ms: first_ms - range_ms,
            to_ms: last_ms,
            range_ms,
            interval_ms: (steps.count > 1 && !ends.is_fixed()).then_some(steps.interval_ms),
        };
        let over =
            |tier: TierReach, shifted| Over { name: function.name, body, selector, ends, range_ms, tier, shifted };
        if ask.from_ms >= reach.raw_ms {
            let Some(tier) = ask.instead_of_raw(&reach) else { return Ok(None) };
            let (rows, odd) = self.rows_over(&over(tier, false), steps)?;
            return Ok(odd.is_empty().then_some(rows));
        }
        if let Some(tier) = ask.exact(&reach) {
            let (mut rows, odd) = self.rows_over(&over(tier, false), steps)?;
            if !odd.is_empty() {
                rows.extend(raw(steps)?.into_iter().filter(|row| odd.contains(&row.labels)));
            }
            return Ok(Some(rows));
        }
        let Some(tier) = ask.shifted(&reach) else { return Ok(None) };
        // Steps whose range lies in raw samples as a whole are answered from these.
        let is_old = |step: &usize| ends.at(steps.at(*step)) - range_ms < reach.raw_ms;
        let old = (0..steps.count).take_while(is_old).count();
        let (rows, _) = self.rows_over(&over(tier, true), Steps { count: old, ..steps })?;
        let width = width(tier.window_ms);
        here.warn(&format!("{}: before that, ranges end up to {width} earlier than asked for", gone(&reach)));
        if old == steps.count {
            return Ok(Some(rows));
        }
        let rest = Steps { start_ms: steps.at(old), count: steps.count - old, ..steps };
        Ok(Some(joined(rows, raw(rest)?, old, steps.count)))
    }

    /// Rows of a function, and the labels of the series that windows cannot tell of.
    fn rows_over(&self, over: &Over<'_>, steps: Steps) -> Result<(Vec<Row>, HashSet<Labels>), QueryError> {
        let (first_ms, last_ms) = over.ends.span(steps);
        let time = (over.end(first_ms) - over.range_ms, over.end(last_ms));
        let found = self.source.select_windows(&over.selector.matchers, over.tier.window_ms, time, self.budget)?;
        self.take_rows(found.len(), steps)?;
        let is_odd =
            |series: &WindowSeries| series.is_odd || series.windows.iter().any(|window| overflows(over.name, window));
        let (odd, plain): (Vec<WindowSeries>, Vec<WindowSeries>) = found.into_iter().partition(is_odd);
        let rows = map_rows(plain, steps.count * 8, |series| {
            let mut cells = vec![absent(); steps.count];
            for (step, cell) in cells.iter_mut().enumerate() {
                if step & 0xff == 0 && self.budget.check().is_err() {
                    break; // the check after the loop tells why
                }
                let to_ms = over.end(over.ends.at(steps.at(step)));
                let from_ms = to_ms - over.range_ms;
                let from = series.windows.partition_point(|window| window.first_ms <= from_ms);
                let to = series.windows.partition_point(|window| window.last_ms <= to_ms);
                if from >= to {
                    continue;
                }
                self.notes.count_samples((to - from) as u64);
                let stretch = Stretch { windows: &series.windows[from..to], from_ms, to_ms };
                *cell = (over.body)(&stretch).unwrap_or_else(absent);
            }
            Row::new(series.labels, cells)
        });
        self.budget.check()?;
        let rows = rows.into_iter().filter(Row::has_any).collect();
        Ok((rows, odd.into_iter().map(|series| series.labels).collect()))
    }

    /// Whether something is left in a tier of samples of this time that are gone.
    pub fn has_thinned(&self, from_ms: i64, to_ms: i64) -> bool {
        let reach = self.source.reach();
        from_ms < reach.raw_ms && reach.older().any(|tier| tier.oldest_ms < to_ms)
    }

    /// Adds to the samples of an instant selector what is left of those that are gone.
    pub fn add_thinned(
        &self,
        selector: &Selector,
        (from_ms, to_ms): (i64, i64),
        series: &mut Vec<Series>,
    ) -> Result<(), QueryError> {
        let reach = self.source.reach();
        let found = self.source.thinned(&selector.matchers, from_ms, to_ms, self.budget)?;
        if !found.is_empty() {
            let text = "before that, only the first and the last sample of each window is known";
            self.notes.at(selector.place).warn(&format!("{}: {text}", gone(&reach)));
        }
        let place: HashMap<Labels, usize> =
            series.iter().enumerate().map(|(at, series)| (series.labels.clone(), at)).collect();
        for mut old in found {
            match place.get(&old.labels) {
                Some(at) => {
                    old.floats.extend(series[*at].floats.iter());
                    series[*at].floats = old.floats;
                }
                None => series.push(old),
            }
        }
        Ok(())
    }

    /// Remarks on a range of which only raw samples count and from whose beginning these are gone.
    pub fn note_gone(&self, from_ms: i64, place: Place) {
        let reach = self.source.reach();
        if from_ms < reach.raw_ms && reach.older().next().is_some() {
            self.notes.at(place).warn(&format!("{}: only later ones count here", gone(&reach)));
        }
    }
}

impl Over<'_> {
    fn end(&self, at_ms: i64) -> i64 {
        if self.shifted { at_ms - at_ms.rem_euclid(self.tier.window_ms) } else { at_ms }
    }
}

/// All ranges of a query.
struct Ask {
    from_ms: i64,
    to_ms: i64,
    range_ms: i64,
    /// `None` where there is only one.
    interval_ms: Option<i64>,
}

impl Ask {
    fn is_aligned(&self, tier: &TierReach) -> bool {
        let on_grid = |ms: i64| ms.rem_euclid(tier.window_ms) == 0;
        on_grid(self.to_ms) && on_grid(self.range_ms) && self.interval_ms.is_none_or(on_grid)
    }

    /// The widest windows that serve as well as the raw samples that are there.
    fn instead_of_raw(&self, reach: &Reach) -> Option<TierReach> {
        let serves = |tier: &&TierReach| {
            let least = WINDOWS_MIN * tier.window_ms;
            let wide = self.range_ms >= least && self.interval_ms.is_none_or(|interval| interval >= least);
            wide && tier.oldest_ms < self.to_ms && (self.interval_ms.is_none() || self.is_aligned(tier))
        };
        reach.tiers.iter().rev().find(serves).copied()
    }

    /// Windows that give the very answer though raw samples are gone: those that go back far enough, or farthest.
    fn exact(&self, reach: &Reach) -> Option<TierReach> {
        let on_grid = |tier: &TierReach, ms: i64| ms.rem_euclid(tier.window_ms) == 0;
        let serves = |tier: &&TierReach| {
            // Of a single range, raw samples cut the last window.
            let cut = self.interval_ms.is_none() && self.to_ms - tier.window_ms >= reach.raw_ms;
            self.is_aligned(tier) || (on_grid(tier, self.from_ms) && cut)
        };
        self.farthest(reach.older().filter(serves))
    }

    fn shifted(&self, reach: &Reach) -> Option<TierReach> {
        self.farthest(reach.older().filter(|tier| self.range_ms.rem_euclid(tier.window_ms) == 0))
    }

    /// The first that has all, else the one that has most.
    fn farthest<'a>(&self, tiers: impl Iterator<Item = &'a TierReach>) -> Option<TierReach> {
        tiers.min_by_key(|tier| tier.oldest_ms.max(self.from_ms)).copied()
    }
}

fn gone(reach: &Reach) -> String {
    let since = Timestamp::from_millisecond(reach.raw_ms).map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    format!("raw samples from before {} are gone", since.unwrap_or_else(|_| format!("{} ms", reach.raw_ms)))
}

fn width(ms: i64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms.unsigned_abs())).to_string()
}

/// Rows of the first steps and of the rest as rows of all.
fn joined(old: Vec<Row>, new: Vec<Row>, first: usize, count: usize) -> Vec<Row> {
    let mut place: HashMap<Labels, usize> = HashMap::new();
    let mut rows: Vec<Row> = Vec::with_capacity(old.len().max(new.len()));
    for (row, start) in old.iter().map(|row| (row, 0)).chain(new.iter().map(|row| (row, first))) {
        let at = *place.entry(row.labels.clone()).or_insert_with(|| {
            rows.push(Row::blank(row.labels.clone(), count).dropping(row.drop_name));
            rows.len() - 1
        });
        for step in 0..row.cells.len() {
            rows[at].set(start + step, row.cell(step));
        }
    }
    rows
}
