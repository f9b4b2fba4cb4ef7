//! Windows of a series: what a tier keeps of its samples, made from samples and put into columns.
//!
//! ```text
//! tick of a run     end of a window, `(end - width, end]`
//! slot of a column  (slot of the series + 1) * 16 + what:
//!    0 missing   ticks of the group in the window, less the samples of the series; no value: nothing of it is in the window
//!    1 first     its value                          4 min, 5 max    told where it is not that of first and last
//!    2 last      where it is not the first          6 resets        sum of the values before each decrease, where not 0
//!    3 sum       where it is not count * first      7, 8 begin, end ms from the group's first and to its last tick, where not 0
//!    9 stale     ms from a stale marker behind the last sample to the window's end
//!   10 histograms, where there are some: these are kept raw only
//! of the group      what alone: 0 count of ticks, 1 ms from the window's beginning to the first, 2 ms from the last to the end
//! ```
//! A series that does not change and is there at each tick costs two points, however many windows it lasts. The increase of a
//! counter inside a window is last - first + resets; over an edge, the last value is lost where the next first one is less.

use super::column::Samples;
use super::run::Run;
use super::tier::Tier;
use super::{Floats, Sample, Value};

/// What is known of a series' samples between two times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Times of the first and last sample.
    pub first_ms: i64,
    pub last_ms: i64,
    /// At least one.
    pub count: u64,
    pub first: f64,
    pub last: f64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// What a counter's decreases took away, in the order of time.
    pub resets: f64,
}

/// A window with what is no number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    pub end_ms: i64,
    pub window: Option<Window>,
    /// A stale marker behind the last sample.
    pub stale_ms: Option<i64>,
    pub histograms: bool,
}

impl Cut {
    fn new(end_ms: i64) -> Self {
        Self { end_ms, window: None, stale_ms: None, histograms: false }
    }
}

/// What is wrong with a sum for having been rounded, kept beside it (Neumaier).
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_finite() {
            let (large, small) = if self.sum.abs() >= value.abs() { (self.sum, value) } else { (value, self.sum) };
            self.lost += (large - total) + small;
        }
        self.sum = total;
    }

    fn total(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

/// Cuts ascending samples into windows.
pub(super) fn cut(samples: &Samples, tier: &Tier) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = Vec::new();
    let mut sum = Sum::default();
    for sample in samples.floats.iter() {
        if cuts.last().is_none_or(|cut| sample.timestamp_ms > cut.end_ms) {
            cuts.push(Cut::new(tier.end_of(sample.timestamp_ms)));
            sum = Sum::default();
        }
        if let Some(cut) = cuts.last_mut() {
            cut.add(sample, &mut sum);
        }
    }
    for (at_ms, _) in &samples.histograms {
        let end_ms = tier.end_of(*at_ms);
        let at = cuts.partition_point(|cut| cut.end_ms < end_ms);
        if cuts.get(at).is_none_or(|cut| cut.end_ms != end_ms) {
            cuts.insert(at, Cut::new(end_ms));
        }
        cuts[at].histograms = true;
    }
    cuts
}

impl Cut {
    fn add(&mut self, sample: Sample, sum: &mut Sum) {
        let Sample { timestamp_ms, value } = sample;
        if lampad_proto::is_stale(value) {
            self.stale_ms = Some(timestamp_ms);
            return;
        }
        self.stale_ms = None;
        sum.add(value);
        let Some(window) = &mut self.window else {
            let at = timestamp_ms;
            let window = Window {
                first_ms: at,
                last_ms: at,
                count: 1,
                first: value,
                last: value,
                sum: value,
                min: value,
                max: value,
                resets: 0.0,
            };
            self.window = Some(window);
            return;
        };
        if value < window.last {
            window.resets += window.last;
        }
        // As PromQL picks them: what comes first stays, save that a NaN gives way to anything.
        if value < window.min || window.min.is_nan() {
            window.min = value;
        }
        if value > window.max || window.max.is_nan() {
            window.max = value;
        }
        (window.last_ms, window.last) = (timestamp_ms, value);
        window.count += 1;
        window.sum = sum.total();
    }
}

const MISSING: u32 = 0;
const FIRST: u32 = 1;
const LAST: u32 = 2;
const SUM: u32 = 3;
const MIN: u32 = 4;
const MAX: u32 = 5;
const RESETS: u32 = 6;
const BEGIN: u32 = 7;
const END: u32 = 8;
const STALE: u32 = 9;
const HISTOGRAMS: u32 = 10;

/// Of a window that does not end with a stale marker, where it must be told.
const NOT_STALE: f64 = -1.0;

/// Columns of a series.
pub(super) const COLUMNS: u32 = 11;

/// Columns of the group itself.
pub(super) const GROUP_COLUMNS: u32 = 3;

const SHIFT: u32 = 4;

/// Slot of what is said of the group itself.
pub(super) const GROUP: u32 = u32::MAX;

/// Slot of a column. The group's own come first, so that numbers stay small.
pub(super) fn column_of(slot: u32, what: u32) -> u32 {
    slot.wrapping_add(1) << SHIFT | what
}

/// The slot of the series to which a column belongs.
pub(super) fn series_of(column: u32) -> u32 {
    (column >> SHIFT).wrapping_sub(1)
}

/// Ticks of a group in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    pub end_ms: i64,
    pub count: u64,
    pub first_ms: i64,
    pub last_ms: i64,
}

/// The windows in which ascending ticks lie, and those that end at one of `more`.
pub(super) fn beats(ticks: &[i64], more: &[i64], tier: &Tier) -> Vec<Beat> {
    let mut beats: Vec<Beat> = Vec::new();
    for tick in ticks {
        match beats.last_mut().filter(|beat| *tick <= beat.end_ms) {
            Some(beat) => (beat.count, beat.last_ms) = (beat.count + 1, *tick),
            None => beats.push(Beat { end_ms: tier.end_of(*tick), count: 1, first_ms: *tick, last_ms: *tick }),
        }
    }
    for end_ms in more {
        let at = beats.partition_point(|beat| beat.end_ms < *end_ms);
        if beats.get(at).is_none_or(|beat| beat.end_ms != *end_ms) {
            beats.insert(at, Beat { end_ms: *end_ms, count: 0, first_ms: *end_ms, last_ms: *end_ms });
        }
    }
    beats
}

/// Windows of a group's series on their way into columns.
#[derive(Debug)]
pub(super) struct Sheet {
    pub run: Run,
    beats: Vec<Beat>,
    /// Everything is said, also what could be left out: these windows stand over others, column by column.
    whole: bool,
}

impl Sheet {
    pub fn new(beats: Vec<Beat>, tier: &Tier, again: bool) -> Self {
        let mut run = Run::new();
        run.live = !again;
        let mut sheet = Self { run, beats: Vec::new(), whole: again };
        for (tick, beat) in (0..).zip(&beats) {
            sheet.run.push_tick(beat.end_ms);
            sheet.set(tick, column_of(GROUP, 0), Some(beat.count as f64));
            sheet.set(tick, column_of(GROUP, 1), Some((beat.first_ms - (beat.end_ms - tier.window_ms)) as f64));
            sheet.set(tick, column_of(GROUP, 2), Some((beat.end_ms - beat.last_ms) as f64));
        }
        sheet.beats = beats;
        sheet
    }

    fn set(&mut self, tick: u32, slot: u32, value: Option<f64>) {
        if value.is_none() && self.run.column(slot).is_none_or(|column| !column.pen.is_present()) {
            return;
        }
        let at = self.run.column_at(slot);
        self.run.write(at, |column| {
            match value.map(Value::Float) {
                Some(value) if column.is_last(&value) => {}
                Some(value) => column.set(tick, &value),
                None => column.absent(tick),
            }
            column.hold();
        });
    }

    /// Adds a series' windows, ascending. One that no beat has is left out: it came after they were counted.
    pub fn add(&mut self, slot: u32, cuts: &[Cut]) {
        let mut cuts = cuts.iter().peekable();
        for tick in 0..self.beats.len() {
            let beat = self.beats[tick];
            while cuts.next_if(|cut| cut.end_ms < beat.end_ms).is_some() {}
            let cut = cuts.next_if(|cut| cut.end_ms == beat.end_ms).copied();
            let tick = tick as u32;
            let Some(cut) = cut.or(self.whole.then(|| Cut::new(beat.end_ms))) else {
                self.set(tick, column_of(slot, MISSING), None);
                continue;
            };
            let count = cut.window.map_or(0, |window| window.count);
            self.set(tick, column_of(slot, MISSING), Some(beat.count as f64 - count as f64));
            let stale = cut.stale_ms.map_or(NOT_STALE, |at_ms| (cut.end_ms - at_ms) as f64);
            self.set(tick, column_of(slot, STALE), self.unless(stale, NOT_STALE));
            self.set(tick, column_of(slot, HISTOGRAMS), self.unless(f64::from(u8::from(cut.histograms)), 0.0));
            let Some(window) = cut.window else { continue };
            let (low, high) = between(window.first, window.last);
            let told = [
                (FIRST, Some(window.first)),
                (LAST, self.unless(window.last, window.first)),
                (SUM, self.unless(window.sum, window.first * window.count as f64)),
                (MIN, self.unless(window.min, low)),
                (MAX, self.unless(window.max, high)),
                (RESETS, self.unless(window.resets, 0.0)),
                (BEGIN, self.unless((window.first_ms - beat.first_ms) as f64, 0.0)),
                (END, self.unless((beat.last_ms - window.last_ms) as f64, 0.0)),
            ];
            told.into_iter().for_each(|(what, value)| self.set(tick, column_of(slot, what), value));
        }
    }

    /// Equal bits need not be told.
    fn unless(&self, value: f64, expected: f64) -> Option<f64> {
        (self.whole || value.to_bits() != expected.to_bits()).then_some(value)
    }
}

/// What the least and the greatest value are where they are not told.
fn between(first: f64, last: f64) -> (f64, f64) {
    (if last < first { last } else { first }, if last > first { last } else { first })
}

/// The columns of one series out of a tier, put together again. `columns` are of [`COLUMNS`], `group` of [`GROUP_COLUMNS`].
pub(super) fn assemble(columns: &[Samples], group: &[Samples], tier: &Tier) -> Vec<Cut> {
    let [missing, rest @ ..] = columns else { return Vec::new() };
    let [counts, firsts, lasts, ..] = group else { return Vec::new() };
    let mut counts = Cursor::new(counts);
    let (mut firsts, mut lasts) = (Cursor::new(firsts), Cursor::new(lasts));
    let mut cursors: Vec<Cursor<'_>> = rest.iter().map(Cursor::new).collect();
    let mut cuts = Vec::with_capacity(missing.floats.len());
    for Sample { timestamp_ms: end_ms, value: missing } in missing.floats.iter() {
        let mut told = [None; COLUMNS as usize];
        told.iter_mut().skip(1).zip(&mut cursors).for_each(|(told, cursor)| *told = cursor.at(end_ms));
        let told = |what: u32| told[what as usize];
        let (Some(ticks), Some(from), Some(to)) = (counts.at(end_ms), firsts.at(end_ms), lasts.at(end_ms)) else {
            continue;
        };
        let mut cut = Cut::new(end_ms);
        cut.stale_ms = told(STALE).filter(|before| *before >= 0.0).map(|before| end_ms - before as i64);
        cut.histograms = told(HISTOGRAMS).is_some_and(|some| some > 0.0);
        let count = ticks - missing;
        if count >= 1.0
            && let Some(first) = told(FIRST)
        {
            let last = told(LAST).unwrap_or(first);
            let (low, high) = between(first, last);
            cut.window = Some(Window {
                first_ms: end_ms - tier.window_ms + from as i64 + told(BEGIN).unwrap_or(0.0) as i64,
                last_ms: end_ms - to as i64 - told(END).unwrap_or(0.0) as i64,
                count: count as u64,
                first,
                last,
                sum: told(SUM).unwrap_or(first * count),
                min: told(MIN).unwrap_or(low),
                max: told(MAX).unwrap_or(high),
                resets: told(RESETS).unwrap_or(0.0),
            });
        }
        cuts.push(cut);
    }
    cuts
}

/// Walks ascending samples by ascending times.
struct Cursor<'a> {
    floats: &'a Floats,
    next: usize,
}

impl<'a> Cursor<'a> {
    fn new(samples: &'a Samples) -> Self {
        Self { floats: &samples.floats, next: 0 }
    }

    fn at(&mut self, at_ms: i64) -> Option<f64> {
        let times = self.floats.times();
        while times.get(self.next).is_some_and(|time| *time < at_ms) {
            self.next += 1;
        }
        self.floats.get(self.next).filter(|sample| sample.timestamp_ms == at_ms).map(|sample| sample.value)
    }
}
