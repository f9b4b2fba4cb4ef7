//! How well the clock is disciplined.
//!
//! Source: `adjtimex(2)` in its asking form, through the safe call of `rtime-clock`: neither rustix nor nix has it.
//! Shape:  `node_timex_*` without labels.
//! Units:  seconds, hertz; the kernel counts nano- or microseconds and 2^-16 ppm.
//! Errors: `Read` where a sandbox forbids the call.

use rtime_clock::adjtime::{Timex as Answer, adjtimex};

use super::reader::Reader;
use super::source::ModuleResult;
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

/// Bit of the status: offsets and jitter are in nanoseconds.
const STA_NANO: i32 = 0x2000;
/// The call's answer when the clock is not synchronised.
const TIME_ERROR: i32 = 5;
/// Frequencies are in parts per million with 16 binary places.
const PPM_16: f64 = 1e6 * 65536.0;
const MICROS: f64 = 1e6;

struct Clock {
    answer: Answer,
    state: i32,
    /// Units of offset and jitter in a second.
    per_second: f64,
}

type Read = fn(&Clock) -> f64;
const ROWS: &[(Desc, Read)] = &[
    (Desc::gauge("node_timex_sync_status", "1 if the clock is kept in step with a reliable one."), |c| {
        if c.state == TIME_ERROR { 0.0 } else { 1.0 }
    }),
    (Desc::gauge("node_timex_offset_seconds", "Offset between the clock and its reference."), |c| {
        c.answer.0.offset as f64 / c.per_second
    }),
    (Desc::gauge("node_timex_frequency_adjustment_ratio", "Speed of the clock as it is adjusted."), |c| {
        1.0 + c.answer.0.freq as f64 / PPM_16
    }),
    (Desc::gauge("node_timex_maxerror_seconds", "Largest error that the clock may have."), |c| {
        c.answer.0.maxerror as f64 / MICROS
    }),
    (Desc::gauge("node_timex_estimated_error_seconds", "Error that the clock probably has."), |c| {
        c.answer.0.esterror as f64 / MICROS
    }),
    (Desc::gauge("node_timex_status", "Bits of the clock's state."), |c| f64::from(c.answer.0.status)),
    (Desc::gauge("node_timex_loop_time_constant", "How slowly the clock follows its reference."), |c| {
        c.answer.0.constant as f64
    }),
    (Desc::gauge("node_timex_tick_seconds", "Time between two ticks of the clock."), |c| {
        c.answer.0.tick as f64 / MICROS
    }),
    (Desc::gauge("node_timex_pps_frequency_hertz", "Frequency of the pulse per second."), |c| {
        c.answer.0.ppsfreq as f64 / PPM_16
    }),
    (Desc::gauge("node_timex_pps_jitter_seconds", "Jitter of the pulse per second."), |c| {
        c.answer.0.jitter as f64 / c.per_second
    }),
    (Desc::gauge("node_timex_pps_shift_seconds", "Length of the pulse's interval, as a power of two."), |c| {
        f64::from(c.answer.0.shift)
    }),
    (Desc::gauge("node_timex_pps_stability_hertz", "Mean drift of the pulse's frequency of late."), |c| {
        c.answer.0.stabil as f64 / PPM_16
    }),
    (Desc::counter("node_timex_pps_jitter_total", "Times the pulse's jitter was too large."), |c| {
        c.answer.0.jitcnt as f64
    }),
    (Desc::counter("node_timex_pps_calibration_total", "Intervals over which the pulse was measured."), |c| {
        c.answer.0.calcnt as f64
    }),
    (Desc::counter("node_timex_pps_error_total", "Measurements of the pulse that failed."), |c| {
        c.answer.0.errcnt as f64
    }),
    (Desc::counter("node_timex_pps_stability_exceeded_total", "Times the pulse drifted too much."), |c| {
        c.answer.0.stbcnt as f64
    }),
    (Desc::gauge("node_timex_tai_offset_seconds", "Atomic time less UTC."), |c| f64::from(c.answer.0.tai)),
];

pub struct Timex;

impl Reader for Timex {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(desc, _)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut answer = Answer::new();
        let state = adjtimex(&mut answer);
        let state = state.map_err(|source| ModuleError::Read { path: "adjtimex(2)".into(), source })?;
        let per_second = if answer.0.status & STA_NANO != 0 { 1e9 } else { MICROS };
        let clock = Clock { answer, state, per_second };
        for (desc, read) in ROWS {
            out.push(desc, &[], read(&clock));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(clock: &Clock, name: &str) -> f64 {
        let row = ROWS.iter().find(|(desc, _)| desc.name == name);
        row.unwrap().1(clock)
    }

    #[test]
    fn units_follow_the_status() {
        let mut answer = Answer::new();
        (answer.0.offset, answer.0.freq, answer.0.tick, answer.0.maxerror) = (2_000_000, 65536, 10_000, 500_000);
        let clock = Clock { answer, state: TIME_ERROR, per_second: 1e9 };
        for (name, value) in [
            ("node_timex_offset_seconds", 0.002),
            ("node_timex_frequency_adjustment_ratio", 1.000001),
            ("node_timex_tick_seconds", 0.01),
            ("node_timex_maxerror_seconds", 0.5),
            ("node_timex_sync_status", 0.0),
        ] {
            assert_eq!(told(&clock, name), value, "{name}");
        }
    }

    #[test]
    fn this_host_has_a_clock() {
        let mut tick = Tick::new();
        match Timex.read(&mut tick) {
            Ok(()) => assert_eq!(tick.samples().count(), ROWS.len()),
            // A container may be denied the call; then the reason is told.
            Err(error) => assert!(error.to_string().contains("adjtimex"), "{error}"),
        }
    }
}
