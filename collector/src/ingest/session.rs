//! One agent's stream: what it says is decoded, resolved, appended, and acked once durable.
//!
//! Knows nothing of the transport: messages come in by [`Session::take`], answers go to the [`Outbox`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lampad_proto::v1::upward::Message;
use lampad_proto::v1::{self, Dictionary, Frame, Ping, Pong, Refusal};
use tokio::time::Instant;
use tonic::Status;

use super::Ingest;
use super::decode::{DecodeError, Lane, LeftOut};
use super::outbox::Outbox;
use super::resolve::References;
use super::skew::Skew;
use crate::clock::now_ms;
use crate::fleet::Lease;
use crate::limits::Limits;
use crate::sink::Unavailable;
use crate::store::{AgentId, Batch, FrameId, Label, Lsn, Run};
use crate::telemetry::Histogram;

/// Frames that an agent may have unacked on a lane; told to it in Welcome.
pub const WINDOW_FRAMES: u32 = 1_024;

/// Unacked frames beyond which a stream is ended: the window twice, as what was sent before Welcome came counts too.
const UNACKED_MAX: usize = 2 * WINDOW_FRAMES as usize;

/// Frames whose decoding takes long enough to give it to a thread of its own.
const HEAVY_VALUES: usize = 8_192;

/// The same of definitions, each of which takes twenty times as long.
const MANY_SERIES: usize = 256;

/// Series over the number of new ones in a minute are asked for after it.
const NEW_SERIES_AGAIN_AFTER: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 60 });

const LIVE: usize = 0;
const BACKFILL: usize = 1;

/// Who pushes on this stream.
pub struct Who {
    pub id: AgentId,
    pub epoch: u64,
    pub instance: String,
    pub labels: Arc<[Label]>,
}

struct Track {
    decoder: Lane,
    references: References,
    unacked: VecDeque<Unacked>,
    /// Sequence of the last frame since the lane was reset.
    last: Option<u64>,
    /// The frame that could not be decoded last time.
    failed: Option<u64>,
    /// A key frame was asked for, and no reset has come yet.
    asked: bool,
    /// When series that were too many for one minute are asked for again.
    again_at: Option<Instant>,
}

/// What a message is to whoever hands out time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Light,
    /// Others would wait for it.
    Heavy,
    /// Much is defined, for which streams take turns.
    Defining,
}

struct Unacked {
    lsn: Lsn,
    sequence: u64,
    arrived: Instant,
}

pub struct Session {
    ingest: Arc<Ingest>,
    who: Who,
    lease: Lease,
    outbox: Arc<Outbox>,
    lanes: [Track; 2],
    skew: Skew,
    freshness: Arc<Histogram>,
    newest: Lsn,
}

impl Session {
    pub fn new(ingest: Arc<Ingest>, who: Who, lease: Lease, outbox: Arc<Outbox>, limits: Arc<Limits>) -> Self {
        let track = || Track {
            decoder: Lane::new(limits.clone(), ingest.symbols.clone()),
            references: References::new(who.id, who.labels.clone()),
            unacked: VecDeque::new(),
            last: None,
            failed: None,
            asked: false,
            again_at: None,
        };
        let lanes = [track(), track()];
        let freshness = ingest.telemetry.freshness(who.id);
        ingest.telemetry.streams.add(1);
        let newest = Lsn(0);
        // A new stream does not make a slow clock right: without this its first ticks would lie in the past.
        let skew = Skew::shifted_by(lease.agent().state().clock_shift_ms);
        Self { ingest, lease, outbox, lanes, skew, freshness, newest, who }
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    pub fn instance(&self) -> &str {
        &self.who.instance
    }

    pub fn awaits_durable(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.unacked.is_empty())
    }

    /// Measures the agent's clock.
    pub fn clock(&mut self, stamp_ms: i64) {
        if self.skew.measure(now_ms(), stamp_ms) {
            let (instance, shift_ms) = (&self.who.instance, self.skew.shift_ms());
            tracing::warn!(%instance, shift_ms, "the agent's clock is off; its ticks are shifted by this much");
        }
        self.lease.clock(self.skew.offset_ms(), self.skew.shift_ms());
    }

    /// Acks what is durable now.
    pub fn settle(&mut self, durable: Lsn) {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let mut through = None;
            while let Some(first) = lane.unacked.front().filter(|first| first.lsn <= durable) {
                through = Some(first.sequence);
                self.ingest.telemetry.durable.observe(first.arrived.elapsed());
                self.ingest.telemetry.frames_unacked.add(-1);
                lane.unacked.pop_front();
            }
            if let Some(through) = through {
                self.outbox.ack(at, through);
            }
        }
    }

    /// How long [`Self::take`] will be busy with this.
    pub fn weight(message: &Message) -> Weight {
        match message {
            Message::Frame(frame) => {
                let values = |tick: &v1::GroupTick| {
                    tick.float_refs.len() + tick.decimals.iter().map(|column| column.refs.len()).sum::<usize>()
                };
                match frame.ticks.iter().map(values).sum::<usize>() > HEAVY_VALUES {
                    true => Weight::Heavy,
                    false => Weight::Light,
                }
            }
            Message::Dictionary(dictionary) if dictionary.series.len() > MANY_SERIES => Weight::Defining,
            _ => Weight::Light,
        }
    }

    /// Takes one message; an error ends the stream.
    pub fn take(&mut self, message: Message) -> Result<(), Status> {
        let arrived = Instant::now();
        self.lease.seen();
        match message {
            Message::Hello(_) => {
                Err(Status::invalid_argument("a second Hello; it is the first message of a stream only"))
            }
            Message::Dictionary(dictionary) => self.dictionary(dictionary),
            Message::Frame(frame) => self.frame(frame, arrived),
            Message::Ping(ping) => {
                self.ping(ping);
                Ok(())
            }
            Message::OrderResult(result) => {
                if result.error.is_empty() {
                    tracing::info!(instance = %self.who.instance, order = result.id, "order carried out");
                } else {
                    tracing::warn!(instance = %self.who.instance, order = result.id, error = %result.error, "order failed");
                }
                Ok(())
            }
        }
    }

    fn ping(&mut self, ping: Ping) {
        self.clock(ping.clock_ms);
        self.lease.modules(ping.modules);
        self.outbox.pong(Pong { id: ping.id, agent_clock_ms: ping.clock_ms, clock_ms: now_ms() });
    }

    fn dictionary(&mut self, dictionary: Dictionary) -> Result<(), Status> {
        let at = lane(dictionary.lane)?;
        let track = &mut self.lanes[at];
        let Some(added) = track.decoder.define(dictionary) else { return Ok(()) };
        if added.reset {
            (track.last, track.asked, track.again_at) = (None, false, None);
        }
        let grown = !added.groups.is_empty();
        let not_taken = track.references.define(&*self.ingest.sink, added).map_err(unavailable)?;
        // What is filled in belongs to what was.
        if grown && at == LIVE {
            self.lease.jobs(track.references.jobs());
        }
        for refused in not_taken {
            if refused.passes {
                track.again_at.get_or_insert_with(|| Instant::now() + NEW_SERIES_AGAIN_AFTER);
            }
            self.ingest.telemetry.series_refused.add(refused.series.len() as u64);
            if let Some(left_out) = self.ingest.repeats.tell(format_args!("{} {}", self.who.instance, refused.reason)) {
                let (instance, series, first) = (&self.who.instance, refused.series.len(), &refused.first);
                tracing::warn!(%instance, series, first, reason = %refused.reason, left_out, "series refused");
            }
            self.outbox.refuse(Refusal { lane: lane_name(at), series: refused.series, reason: refused.reason });
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame, arrived: Instant) -> Result<(), Status> {
        let at = lane(frame.lane)?;
        if self.lanes[at].unacked.len() >= UNACKED_MAX {
            let text = format!("{UNACKED_MAX} frames are unacked, the window is {WINDOW_FRAMES}; wait for acks");
            return Err(Status::resource_exhausted(text));
        }
        if at == LIVE {
            self.clock(frame.sent_ms);
            if self.lease.take_lapsed() {
                self.lanes[LIVE].decoder.owe_all_keys();
            }
        }
        let track = &mut self.lanes[at];
        if !track.decoder.is_sound() && track.asked {
            return Ok(()); // It belongs to what was lost; the reset is on its way.
        }
        let sequence = frame.sequence;
        let ticks = match track.last {
            Some(last) if sequence <= last => Err(DecodeError::Malformed {
                group: "(all)".into(),
                trouble: format!("frame {sequence} follows frame {last}; sequences ascend within a lane"),
            }),
            _ => track.decoder.decode(&frame),
        };
        let ticks = match ticks {
            Ok(ticks) => ticks,
            Err(error) => {
                self.failed(at, sequence, &error, arrived);
                return Ok(());
            }
        };
        track.last = Some(sequence);
        let left_out = track.decoder.take_left_out();
        self.append(at, &frame, ticks, arrived)?;
        self.left_out(at, left_out);
        self.ask_again(at);
        Ok(())
    }

    fn append(
        &mut self,
        at: usize,
        frame: &Frame,
        ticks: Vec<super::decode::Tick>,
        arrived: Instant,
    ) -> Result<(), Status> {
        let telemetry = &self.ingest.telemetry;
        let track = &mut self.lanes[at];
        let groups: Vec<u32> = ticks.iter().map(|tick| tick.group).collect();
        let values: usize = ticks.iter().map(|tick| tick.values.len()).sum();
        let newest_ms = ticks.iter().map(|tick| tick.timestamp_ms).max();
        let shift_ms = self.skew.shift_ms();
        let run = if at == LIVE { Run::Live } else { Run::Backfill };
        let id = FrameId { agent: self.who.id, epoch: self.who.epoch, sequence: frame.sequence };
        let ticks = track.references.batches(ticks, run, shift_ms);
        let appended = self.ingest.sink.append(&Batch { frame: Some(id), ticks }).map_err(unavailable)?;
        self.newest = self.newest.max(appended.lsn);
        track.unacked.push_back(Unacked { lsn: appended.lsn, sequence: frame.sequence, arrived });
        telemetry.frames_unacked.add(1);
        if appended.duplicate {
            telemetry.frames_repeated.one();
            track.decoder.owe_keys(groups);
            return Ok(());
        }
        if at == LIVE { &telemetry.frames_live } else { &telemetry.frames_backfill }.one();
        telemetry.ticks.add(groups.len() as u64);
        telemetry.values.add(values as u64);
        telemetry.queryable.observe(arrived.elapsed());
        self.refused(&appended.refused);
        if let Some(gone) = appended.refused.iter().find(|refused| matches!(refused, crate::store::Refused::Invalid(_)))
        {
            // Absent for longer than the retention, the series was forgotten: the stream must define it anew.
            let track = &mut self.lanes[at];
            telemetry.key_frames_wanted.one();
            track.decoder.spoil();
            track.asked = true;
            self.outbox.key_frame_wanted(at, gone.to_string());
        }
        let now = now_ms();
        self.lease.pushed(now, now.saturating_sub(frame.sent_ms).saturating_sub(shift_ms));
        if let Some(newest_ms) = newest_ms.filter(|_| at == LIVE) {
            let age_ms = now.saturating_sub(newest_ms).saturating_sub(shift_ms).max(0);
            self.freshness.observe(Duration::from_millis(age_ms.unsigned_abs()));
        }
        Ok(())
    }

    fn left_out(&self, at: usize, LeftOut { series, ticks }: LeftOut) {
        let (limits, telemetry, instance) = (&self.ingest.limits, &self.ingest.telemetry, &self.who.instance);
        if !series.is_empty() {
            let most = limits.values_per_frame;
            let reason = format!("a frame brings at most {most} values; let one module make fewer series");
            telemetry.series_refused.add(series.len());
            if let Some(left_out) = self.ingest.repeats.tell(format_args!("{instance} values")) {
                tracing::warn!(instance, series = series.len(), left_out, reason, "series refused");
            }
            self.outbox.refuse(Refusal { lane: lane_name(at), series: series.iter().collect(), reason });
        }
        if ticks > 0 {
            let (most, values) = (limits.ticks_per_frame, limits.values_per_frame);
            let reason = format!(
                "a frame brings at most {most} ticks and {values} values, {ticks} ticks of this one are not stored; send \
                 smaller frames"
            );
            telemetry.ticks_refused.add(ticks as u64);
            if let Some(left_out) = self.ingest.repeats.tell(format_args!("{instance} ticks")) {
                tracing::warn!(instance, ticks, left_out, reason, "ticks refused");
            }
            self.outbox.refuse(Refusal { lane: lane_name(at), series: Vec::new(), reason });
        }
    }

    /// Series that were too many for one minute are defined anew in a later one: the lane begins from its dictionary.
    fn ask_again(&mut self, at: usize) {
        let track = &mut self.lanes[at];
        if track.asked || track.again_at.is_none_or(|again_at| Instant::now() < again_at) {
            return;
        }
        self.ingest.telemetry.key_frames_wanted.one();
        track.decoder.spoil();
        track.asked = true;
        self.outbox.key_frame_wanted(at, "some series were too many for one minute; define them again".into());
    }

    fn refused(&self, refused: &[crate::store::Refused]) {
        let Some(first) = refused.first() else { return };
        self.ingest.telemetry.refused(refused);
        if let Some(left_out) = self.ingest.repeats.tell(format_args!("{} samples", self.who.instance)) {
            let samples = refused.len();
            tracing::warn!(instance = %self.who.instance, samples, left_out, reason = %first, "samples refused");
        }
    }

    /// A frame could not be decoded. Once this may be cured by a key frame; the same frame again is given up, because it
    /// would block all behind it for ever.
    fn failed(&mut self, at: usize, sequence: u64, error: &DecodeError, arrived: Instant) {
        let track = &mut self.lanes[at];
        let instance = &self.who.instance;
        let reason = format!("frame {sequence}: {error}");
        self.ingest.telemetry.frames_malformed.one();
        if let Some(left_out) = self.ingest.repeats.tell(format_args!("{instance} {error}")) {
            tracing::warn!(%instance, sequence, left_out, %error, "frame not taken, a key frame is wanted");
        }
        if *error != DecodeError::NoDictionary && track.failed.replace(sequence) == Some(sequence) {
            self.ingest.telemetry.frames_discarded.one();
            tracing::error!(%instance, sequence, %error, "frame cannot be decoded even when sent again; it is given up");
            track.unacked.push_back(Unacked { lsn: self.newest, sequence, arrived });
            self.ingest.telemetry.frames_unacked.add(1);
            self.outbox.refuse(Refusal { lane: lane_name(at), series: Vec::new(), reason: reason.clone() });
        }
        self.ingest.telemetry.key_frames_wanted.one();
        track.decoder.spoil();
        track.asked = true;
        self.outbox.key_frame_wanted(at, reason);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ingest.telemetry.streams.add(-1);
        let unacked: usize = self.lanes.iter().map(|lane| lane.unacked.len()).sum();
        self.ingest.telemetry.frames_unacked.add(-(unacked as i64));
    }
}

fn lane(number: i32) -> Result<usize, Status> {
    match v1::Lane::try_from(number) {
        Ok(v1::Lane::Live) => Ok(LIVE),
        Ok(v1::Lane::Backfill) => Ok(BACKFILL),
        _ => Err(Status::invalid_argument(format!("lane {number} is unknown; say live (1) or back-fill (2)"))),
    }
}

fn lane_name(at: usize) -> i32 {
    if at == LIVE { v1::Lane::Live.into() } else { v1::Lane::Backfill.into() }
}

fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(format!("the collector cannot store at present: {error}; keep the frames and come again"))
}
