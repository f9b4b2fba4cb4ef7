//! How far a command has come: a line that is written over on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const CELLS: u64 = 30;
const ON_TERMINAL_EVERY: Duration = Duration::from_millis(100);
const ELSEWHERE_EVERY: Duration = Duration::from_secs(10);

pub struct Bar {
    what: &'static str,
    terminal: bool,
    told: Instant,
    shown: bool,
}

impl Bar {
    pub fn new(what: &'static str) -> Self {
        Self { what, terminal: std::io::stderr().is_terminal(), told: Instant::now(), shown: false }
    }

    /// `done` of `all` units, and what else there is to say.
    pub fn show(&mut self, done: u64, all: u64, more: &str) {
        let every = if self.terminal { ON_TERMINAL_EVERY } else { ELSEWHERE_EVERY };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        self.shown = true;
        let line = line(self.what, done, all, more);
        // To standard error, which may be closed: progress is no reason to fail.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// Leaves the terminal's line as it was.
    pub fn end(&mut self) {
        if self.terminal && std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, all: u64, more: &str) -> String {
    let all = all.max(1);
    let full = (done.min(all) * CELLS / all) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(CELLS as usize - full));
    format!("{what} [{bar}] {:3} %  {done} of {all} {more}", done.min(all) * 100 / all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_shows_the_share() {
        let line = super::line("backup", 1, 4, "values");
        assert_eq!(line, "backup [#######.......................]  25 %  1 of 4 values");
        assert!(super::line("backup", 9, 0, "values").contains("100 %"));
    }
}
