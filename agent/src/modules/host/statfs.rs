//! Asking a file system for its room without ever being held up by it.
//!
//! `statfs` on a dead network mount blocks in the kernel and cannot be ended. So a helper thread asks, and the wait has a
//! limit. A helper that overruns it is left behind with its mount, which is told as stalled until that very call returns; a
//! fresh helper goes on with the other mounts. At most [`STALLED_MAX`] helpers are left behind; while that many are, no mount
//! is asked, because each new one could be swallowed too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

/// Dead mounts that are borne. Each holds one thread, about 20 KiB resident.
const STALLED_MAX: usize = 8;

/// What is told of a mount whose answer is overdue; node_exporter's words.
pub const STALLED: &str = "mountpoint timeout";

/// Room on a file system, in bytes and files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    pub size_bytes: f64,
    pub free_bytes: f64,
    pub avail_bytes: f64,
    pub files: f64,
    pub files_free: f64,
}

type Ask = dyn Fn(&Path) -> io::Result<Room> + Send + Sync;
type Answer = io::Result<Room>;

pub struct Statfs {
    ask: Arc<Ask>,
    limit: Duration,
    helper: Option<SyncSender<(PathBuf, oneshot::Sender<Answer>)>>,
    /// Asked and not answered yet. Kept here and not in the wait, which the module's deadline may cut short.
    asked: Option<(PathBuf, oneshot::Receiver<Answer>)>,
    stalled: Vec<(PathBuf, oneshot::Receiver<Answer>)>,
}

impl Statfs {
    pub fn new(limit: Duration) -> Self {
        Self::with(limit, Arc::new(room))
    }

    fn with(limit: Duration, ask: Arc<Ask>) -> Self {
        Self { ask, limit, helper: None, asked: None, stalled: Vec::new() }
    }

    /// Room at `path`, or why it is not known.
    pub async fn room(&mut self, path: &Path) -> Result<Room, String> {
        self.leave_behind();
        if let Some(at) = self.stalled.iter().position(|(stalled, _)| stalled == path) {
            return match self.stalled[at].1.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => Err(STALLED.into()),
                Err(oneshot::error::TryRecvError::Closed) => {
                    self.stalled.swap_remove(at);
                    Err("the helper thread ended".into())
                }
                Ok(answer) => {
                    self.stalled.swap_remove(at);
                    answer.map_err(|error| words(&error))
                }
            };
        }
        // A mount that was taken away is never asked for again, so its place is given back here.
        self.stalled.retain_mut(|(_, answer)| matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        if self.stalled.len() >= STALLED_MAX {
            return Err(format!("not asked: {STALLED_MAX} mounts do not answer"));
        }
        let answer = self.send(path)?;
        let (_, answer) = self.asked.insert((path.to_owned(), answer));
        match tokio::time::timeout(self.limit, answer).await {
            Ok(answer) => {
                self.asked = None;
                match answer {
                    Ok(answer) => answer.map_err(|error| words(&error)),
                    Err(_) => {
                        self.helper = None;
                        Err("the helper thread ended".into())
                    }
                }
            }
            Err(_) => {
                self.leave_behind();
                Err(STALLED.into())
            }
        }
    }

    /// Gives up the helper that has been asked and has not answered, if there is one.
    fn leave_behind(&mut self) {
        if let Some(asked) = self.asked.take() {
            // Its channel closes with this, so the helper ends as soon as the kernel lets it go.
            self.helper = None;
            self.stalled.push(asked);
        }
    }

    fn send(&mut self, path: &Path) -> Result<oneshot::Receiver<Answer>, String> {
        let helper = match &self.helper {
            Some(helper) => helper,
            None => self.helper.insert(start(self.ask.clone()).map_err(|error| words(&error))?),
        };
        let (sender, receiver) = oneshot::channel();
        // The queue has room for one, and the helper is idle: this does not wait.
        helper.try_send((path.to_owned(), sender)).map_err(|_| {
            self.helper = None;
            "the helper thread ended".to_owned()
        })?;
        Ok(receiver)
    }
}

fn start(ask: Arc<Ask>) -> io::Result<SyncSender<(PathBuf, oneshot::Sender<Answer>)>> {
    let (sender, jobs) = sync_channel::<(PathBuf, oneshot::Sender<Answer>)>(1);
    std::thread::Builder::new().name("statfs".into()).stack_size(64 * 1024).spawn(move || {
        for (path, answer) in jobs {
            // Nobody waits any more when the module is gone.
            let _ = answer.send(ask(&path));
        }
    })?;
    Ok(sender)
}

fn room(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statfs(path)?;
    let block = stat.f_bsize as f64;
    Ok(Room {
        size_bytes: stat.f_blocks as f64 * block,
        free_bytes: stat.f_bfree as f64 * block,
        avail_bytes: stat.f_bavail as f64 * block,
        files: stat.f_files as f64,
        files_free: stat.f_ffree as f64,
    })
}

/// The system's words for the error as node_exporter has them: `permission denied`.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const ROOM: Room = Room { size_bytes: 1.0, free_bytes: 2.0, avail_bytes: 3.0, files: 4.0, files_free: 5.0 };

    /// Paths that begin with `/dead` block until the returned sender is used.
    fn with_dead_mounts(limit: Duration) -> (Statfs, Sender<()>) {
        let (wake, asleep): (Sender<()>, Receiver<()>) = channel();
        let asleep = Mutex::new(asleep);
        let ask = move |path: &Path| {
            if path.starts_with("/dead") {
                asleep.lock().unwrap().recv().ok();
            }
            Ok(ROOM)
        };
        (Statfs::with(limit, Arc::new(ask)), wake)
    }

    #[tokio::test]
    async fn a_dead_mount_stalls_nobody_and_comes_back() {
        let (mut statfs, wake) = with_dead_mounts(Duration::from_millis(20));
        assert_eq!(statfs.room(Path::new("/live")).await, Ok(ROOM));
        assert_eq!(statfs.room(Path::new("/dead")).await, Err(STALLED.into()));
        assert_eq!(statfs.room(Path::new("/live")).await, Ok(ROOM), "a fresh helper goes on");
        let before = std::time::Instant::now();
        assert_eq!(statfs.room(Path::new("/dead")).await, Err(STALLED.into()));
        assert!(before.elapsed() < Duration::from_millis(20), "a stalled mount is not waited for again");
        wake.send(()).unwrap();
        let back = async {
            while statfs.room(Path::new("/dead")).await != Ok(ROOM) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), back).await.expect("told again once it answers");
    }

    #[tokio::test]
    async fn a_wait_that_is_cut_short_leaves_its_helper_behind_all_the_same() {
        let (mut statfs, _wake) = with_dead_mounts(Duration::from_secs(60));
        let cut = tokio::time::timeout(Duration::from_millis(5), statfs.room(Path::new("/dead"))).await;
        assert!(cut.is_err(), "the module's deadline comes first");
        assert_eq!(statfs.room(Path::new("/live")).await, Ok(ROOM), "a fresh helper goes on");
        assert_eq!(statfs.room(Path::new("/dead")).await, Err(STALLED.into()));
        assert_eq!(statfs.stalled.len(), 1);
    }

    #[tokio::test]
    async fn helpers_left_behind_are_bounded() {
        let (mut statfs, wake) = with_dead_mounts(Duration::from_millis(2));
        for n in 0..STALLED_MAX {
            assert_eq!(statfs.room(Path::new(&format!("/dead/{n}"))).await, Err(STALLED.into()));
        }
        let refused = statfs.room(Path::new("/live")).await.unwrap_err();
        assert!(refused.starts_with("not asked"), "{refused}");
        assert_eq!(statfs.stalled.len(), STALLED_MAX);
        // All are unmounted by force, and none of them is asked for again.
        drop(wake);
        let back = async {
            while statfs.room(Path::new("/live")).await != Ok(ROOM) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), back).await.expect("places are given back");
    }

    #[tokio::test]
    async fn errors_are_in_the_systems_words() {
        let mut statfs = Statfs::new(Duration::from_secs(10));
        assert_eq!(statfs.room(Path::new("/no/such/mount")).await, Err("no such file or directory".into()));
        assert!(statfs.room(Path::new("/")).await.unwrap().size_bytes >= 0.0);
    }
}
