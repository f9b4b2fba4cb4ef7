//! The first message of a stream: who is it, and may it push?

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lampad_proto::PROTOCOL;
use lampad_proto::v1::{Hello, SequenceRange, Welcome};
use tokio::time::timeout;
use tonic::Status;

use super::Ingest;
use super::session::{WINDOW_FRAMES, Who};
use crate::clock::now_ms;
use crate::fleet::{self, Attach, AttachError, LEASE, Lease};
use crate::sink::Sink;
use crate::store::{AgentId, Batch, Label, SequenceSet};

/// How long an agent waits for its Welcome so that what is being written may be told as durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(2);

/// The frames of the agent's epoch that are durable; fewer where the disk hangs, then some are sent again in vain.
pub async fn stored(sink: &dyn Sink, hello: &Hello) -> Result<Stored, Status> {
    let id = agent_id(hello)?;
    let appended = sink.stored(id, hello.epoch);
    if appended.is_empty() || hello.pending.is_empty() {
        return Ok(Stored { durable: SequenceSet::default(), appended });
    }
    // An agent lets go of what it is told here: an empty batch behind all that is appended shows when that is flushed.
    let Ok(mark) = sink.append(&Batch::default()) else {
        return Ok(Stored { durable: SequenceSet::default(), appended });
    };
    let mut durable = sink.durable();
    let flushed = timeout(DURABLE_WITHIN, durable.wait_for(|lsn| *lsn >= mark.lsn)).await;
    let durable = if matches!(flushed, Ok(Ok(_))) { appended.clone() } else { SequenceSet::default() };
    Ok(Stored { durable, appended })
}

pub struct Stored {
    durable: SequenceSet,
    appended: SequenceSet,
}

/// Takes a Hello: the right to push and the answer, or why not.
pub fn admit(
    ingest: &Ingest,
    hello: Hello,
    stored: &Stored,
    peer: SocketAddr,
) -> Result<(Who, Lease, Welcome), Status> {
    let protocol = protocol(&hello)?;
    let id = agent_id(&hello)?;
    let labels = labels(ingest, &hello)?;
    let Some(instance) = labels.get("instance").cloned() else {
        return Err(Status::invalid_argument("Hello has no label `instance`; start the agent with --instance NAME"));
    };
    if let Some((_, last)) = stored.appended.ranges().last().filter(|(_, last)| *last >= hello.next_sequence) {
        // Frames with these numbers would be taken for those that are stored, and be lost.
        return Err(Status::out_of_range(format!(
            "epoch {:016x} is stored up to frame {last} and this agent would go on with {}: its state directory is older \
             than what was acked; start a new epoch",
            hello.epoch, hello.next_sequence
        )));
    }
    let durable = durable(&hello.pending, &stored.durable);
    let said = fleet::Hello {
        epoch: hello.epoch,
        instance: instance.clone(),
        hostname: hello.hostname,
        version: hello.agent_version,
        labels: labels.clone(),
    };
    let attach = Attach { id, hello: said, modules: hello.modules, peer, now_ms: now_ms() };
    let lease = ingest.registry.attach(attach).map_err(|error| match error {
        AttachError::TooMany(_) => Status::resource_exhausted(error.to_string()),
        AttachError::SameId { .. } | AttachError::SameInstance { .. } => Status::already_exists(error.to_string()),
    })?;
    let label = |(name, value): (&String, &String)| Label { name: name.as_str().into(), value: value.as_str().into() };
    let labels: Arc<[Label]> = labels.iter().map(label).collect();
    let welcome = Welcome {
        protocol,
        collector_version: env!("CARGO_PKG_VERSION").into(),
        durable,
        clock_ms: now_ms(),
        lease_ms: LEASE.as_millis() as u32,
        window_frames: WINDOW_FRAMES,
    };
    Ok((Who { id, epoch: hello.epoch, instance, labels }, lease, welcome))
}

/// The newest version that both speak.
fn protocol(hello: &Hello) -> Result<u32, Status> {
    let (oldest, newest) = PROTOCOL.into_inner();
    let version = hello.protocol_max.min(newest);
    if version < oldest || version < hello.protocol_min {
        return Err(Status::failed_precondition(format!(
            "the agent speaks protocol {} to {}, this collector {oldest} to {newest}; upgrade the older one",
            hello.protocol_min, hello.protocol_max
        )));
    }
    Ok(version)
}

fn agent_id(hello: &Hello) -> Result<AgentId, Status> {
    let id = <[u8; 16]>::try_from(&*hello.agent_id).map_err(|_| {
        Status::invalid_argument(format!("agent_id has {} bytes; it is 16 random bytes", hello.agent_id.len()))
    })?;
    if id == [0; 16] {
        return Err(Status::invalid_argument("agent_id is all zeros; it is 16 random bytes"));
    }
    Ok(AgentId(id))
}

fn labels(ingest: &Ingest, hello: &Hello) -> Result<BTreeMap<String, String>, Status> {
    let mut labels = BTreeMap::new();
    for label in &hello.labels {
        ingest.limits.label(&label.name, &label.value).map_err(Status::invalid_argument)?;
        if label.value.is_empty() {
            continue;
        }
        if labels.insert(label.name.clone(), label.value.clone()).is_some() {
            return Err(Status::invalid_argument(format!("Hello has label {} twice", label.name)));
        }
    }
    ingest.limits.label_count("Hello", labels.len()).map_err(Status::invalid_argument)?;
    Ok(labels)
}

/// What of `pending` is stored: the agent need not send it.
fn durable(pending: &[SequenceRange], stored: &SequenceSet) -> Vec<SequenceRange> {
    /// Ranges answered; an agent that names more sends a few frames in vain.
    const ANSWERED_MAX: usize = 10_000;
    let both = pending.iter().flat_map(|range| {
        stored.ranges().filter_map(move |(first, last)| {
            let (first, last) = (first.max(range.first), last.min(range.last));
            (first <= last).then_some(SequenceRange { first, last })
        })
    });
    both.take(ANSWERED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_pending_the_stored_part_is_told() {
        let mut stored = SequenceSet::default();
        stored.insert_range(1, 10);
        stored.insert_range(20, 30);
        let pending = [SequenceRange { first: 5, last: 22 }, SequenceRange { first: 29, last: 40 }];
        let told: Vec<_> = durable(&pending, &stored).iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(told, [(5, 10), (20, 22), (29, 30)]);
    }

    #[test]
    fn protocols_without_a_common_version_are_refused() {
        for (min, max, expected) in [(1, 1, Some(1)), (1, 9, Some(2)), (2, 3, Some(2)), (3, 9, None), (0, 0, None)] {
            let hello = Hello { protocol_min: min, protocol_max: max, ..Hello::default() };
            assert_eq!(protocol(&hello).ok(), expected, "{min}..={max}");
        }
    }
}
