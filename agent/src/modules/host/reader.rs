//! How a host source becomes a module: files of `/proc` and `/sys` are read without ever awaiting, so a source is a plain
//! [`Reader`] and these wrappers give it the async face that the sampler knows.

use async_trait::async_trait;

use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// A source that answers at once, and is simple to call from a test.
pub trait Reader: Send {
    fn descs(&self) -> Vec<Desc>;
    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError>;
}

/// Reads where it stands: for sources that the kernel answers from memory, in microseconds.
pub struct Quick<R>(pub R);

#[async_trait]
impl<R: Reader> Module for Quick<R> {
    fn descs(&self) -> Vec<Desc> {
        self.0.descs()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        self.0.read(out)
    }
}

/// Reads beside the runtime: for sources behind which hardware is asked (a sensor on a slow bus takes 100 ms and more) or
/// that walk thousands of files. The worker's other tasks move to another thread meanwhile.
pub struct Slow<R>(pub R);

#[async_trait]
impl<R: Reader> Module for Slow<R> {
    fn descs(&self) -> Vec<Desc> {
        self.0.descs()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        use tokio::runtime::{Handle, RuntimeFlavor};
        // A runtime of one thread has nowhere to move its tasks to; it exists in tests and tools only.
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| self.0.read(out)),
            _ => self.0.read(out),
        }
    }
}
