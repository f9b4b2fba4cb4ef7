use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use async_trait::async_trait;

use super::*;
use crate::config::Flags;
use crate::module::{Desc, Module, ModuleError, Spec, Tier};
use crate::spool::Health;
use crate::tick::Tick;

/// Its first read blocks the thread until the other end is dropped, as a file of a hung driver does.
struct Blocking {
    begun: Sender<()>,
    asleep: Mutex<Receiver<()>>,
}

#[async_trait]
impl Module for Blocking {
    fn descs(&self) -> Vec<Desc> {
        Vec::new()
    }

    async fn sample(&mut self, _: &mut Tick) -> Result<(), ModuleError> {
        let _ = self.begun.send(());
        let _ = self.asleep.lock().unwrap().recv();
        Ok(())
    }
}

/// The module, what tells that its read has begun, and what ends it.
fn blocking() -> (Entry, Receiver<()>, Sender<()>) {
    let (begun, reads) = channel();
    let (wake, asleep) = channel();
    let spec = Spec::new("test.blocking", "", "node", Tier::Standard);
    (Entry { spec, module: Box::new(Blocking { begun, asleep: Mutex::new(asleep) }) }, reads, wake)
}

/// A reload waited for such a read for ever, and so did SIGTERM.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_module_that_does_not_come_back_is_left_behind() {
    let config = Config::load(&Flags::default()).unwrap();
    let catalog = Arc::new(RwLock::new(Catalog::new()));
    let (out, _samples) = mpsc::channel(16);
    let mut roster = Roster::new(Surroundings {
        agent_id: [1; 16],
        clock: Arc::new(Clock::system()),
        catalog: catalog.clone(),
        out,
        shared: Shared::new(Arc::<Health>::default()),
    });
    let (first, first_reads, wake_first) = blocking();
    let (second, second_reads, wake_second) = blocking();
    let all = async {
        roster.replace("test.", vec![first], &config).await;
        first_reads.recv().unwrap();
        let group = catalog.read().unwrap().find("test.blocking");
        roster.replace("test.", vec![second], &config).await;
        assert_ne!(
            catalog.read().unwrap().find("test.blocking"),
            group,
            "the one left behind has its group for itself"
        );
        second_reads.recv().unwrap();
        roster.shut_down().await;
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("both end");
    drop((wake_first, wake_second));
}
