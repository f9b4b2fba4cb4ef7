//! Any body as a remote-write request, over the router that serves them, with a sink that forgets.
//!
//! The first byte tells whether the rest is a body as it comes, or a message that is packed first: few changes of packed
//! bytes would unpack to anything.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use lampad_collector::auth::{Access, Rules};
use lampad_collector::fleet::Registry;
use lampad_collector::ingest::{Ingest, remote_write_router};
use lampad_collector::limits::Limits;
use lampad_collector::logging::Repeats;
use lampad_collector::sink::{Appended, Sink, Unavailable};
use lampad_collector::store::{
    AgentId, Batch, GroupId, GroupKey, Labels, Lsn, Refused, SequenceSet, SeriesKey, Slot, WriteMode,
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Requests to one receiver: it remembers series, and a later request may meet what an earlier one left.
const REQUESTS_MAX: usize = 2_000;

thread_local! {
    static SITE: RefCell<Option<Site>> = const { RefCell::new(None) };
}

struct Site {
    runtime: Runtime,
    router: Router,
    requests: usize,
}

impl Site {
    fn new() -> Self {
        let ingest = Ingest {
            sink: Arc::new(Forgetful { known: Mutex::default(), durable: watch::channel(Lsn(u64::MAX)).0 }),
            registry: Registry::new(1, []),
            telemetry: Arc::default(),
            limits: Arc::new(Limits::default()),
            access: Arc::new(Access::new(Rules::default())),
            repeats: Repeats::default(),
            symbols: Arc::default(),
            defining: Default::default(),
            shutdown: CancellationToken::new(),
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime needs nothing");
        Self { runtime, router: remote_write_router(Arc::new(ingest), Arc::default()), requests: 0 }
    }

    fn post(&mut self, body: Vec<u8>) -> StatusCode {
        self.requests += 1;
        let request = Request::post("/api/v1/write").body(Body::from(body)).expect("a path and a body");
        let reply = self.runtime.block_on(self.router.clone().oneshot(request));
        reply.map_or(StatusCode::INTERNAL_SERVER_ERROR, |reply| reply.status())
    }
}

/// Series by group, so that a series keeps its slot.
type Known = (Vec<GroupKey>, HashMap<(GroupId, Labels), Slot>);

struct Forgetful {
    known: Mutex<Known>,
    durable: watch::Sender<Lsn>,
}

impl Sink for Forgetful {
    fn define_group(&self, key: GroupKey, _: WriteMode) -> Result<GroupId, Refused> {
        let mut known = self.known.lock().expect("no holder panics");
        let at = known.0.iter().position(|group| *group == key).unwrap_or(known.0.len());
        if at == known.0.len() {
            known.0.push(key);
        }
        Ok(GroupId(at as u32))
    }

    fn define_series(&self, group: GroupId, series: &[SeriesKey]) -> Vec<Result<Slot, Refused>> {
        let mut known = self.known.lock().expect("no holder panics");
        let mut define = |series: &SeriesKey| {
            let next = Slot(known.1.len() as u32);
            Ok(*known.1.entry((group, series.labels.clone())).or_insert(next))
        };
        series.iter().map(&mut define).collect()
    }

    fn append(&self, batch: &Batch) -> Result<Appended, Unavailable> {
        for tick in &batch.ticks {
            let known = self.known.lock().expect("no holder panics").1.len();
            assert!(tick.values.iter().all(|(slot, _)| (slot.0 as usize) < known), "a slot that was never given");
        }
        Ok(Appended { lsn: Lsn(1), duplicate: false, refused: Vec::new() })
    }

    fn durable(&self) -> watch::Receiver<Lsn> {
        self.durable.subscribe()
    }

    fn stored(&self, _: AgentId, _: u64) -> SequenceSet {
        SequenceSet::default()
    }

    fn silence(&self, _: AgentId, _: i64) {}
}

fuzz_target!(|bytes: &[u8]| {
    let Some((form, rest)) = bytes.split_first() else { return };
    let body = match form & 1 {
        0 => rest.to_vec(),
        _ => snap::raw::Encoder::new().compress_vec(rest).expect("what is this short can be packed"),
    };
    SITE.with_borrow_mut(|site| {
        let site = site.get_or_insert_with(Site::new);
        let status = site.post(body);
        assert!(matches!(status.as_u16(), 204 | 400), "{status}");
    });
    SITE.with_borrow_mut(|site| drop(site.take_if(|site| site.requests >= REQUESTS_MAX)));
});
