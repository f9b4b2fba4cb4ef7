//! Software RAID: state, disks and progress of each array.
//!
//! Source: `/proc/mdstat`; `/sys/block/md*/md` for what is degraded.
//! Shape:  `node_md_*{device}`, `node_md_disks{device,state}`, `node_md_state{device,state}` with 1 for the state it is in.
//! Units:  blocks of 1 KiB; disks.
//! Errors: `Absent` without mdstat; `Parse` for an array without its line of blocks.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, attribute, names_in, number, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Desc {
    Desc::gauge(name, help).labels(labels)
}

const STATE: Desc = gauge("node_md_state", "1 for the state that the array is in.", &["device", "state"]);
const DISKS: Desc = gauge("node_md_disks", "Disks of the array by what they do.", &["device", "state"]);
const REQUIRED: Desc = gauge("node_md_disks_required", "Disks that the array should have.", &["device"]);
const BLOCKS: Desc = gauge("node_md_blocks", "Size of the array in blocks.", &["device"]);
const SYNCED: Desc = gauge("node_md_blocks_synced", "Blocks that are in step on all disks.", &["device"]);
const DEGRADED: Desc = gauge("node_md_degraded", "Disks that the array lacks.", &["device"]);
const RAID_DISKS: Desc = gauge("node_md_raid_disks", "Disks that the array is made of.", &["device"]);

const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];

pub struct MdAdm {
    file: ProcFile,
    block: PathBuf,
}

#[derive(Debug, PartialEq)]
struct Array {
    state: &'static str,
    active: f64,
    failed: f64,
    spare: f64,
    required: f64,
    blocks: f64,
    synced: f64,
}

impl MdAdm {
    pub fn new(procfs: &Path, sysfs: &Path) -> Self {
        Self { file: ProcFile::new(procfs.join("mdstat")), block: sysfs.join("block") }
    }
}

impl Reader for MdAdm {
    fn descs(&self) -> Vec<Desc> {
        vec![STATE, DISKS, REQUIRED, BLOCKS, SYNCED, DEGRADED, RAID_DISKS]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.file.path().to_owned();
        let text = self.file.text()?;
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((device, rest)) = line.split_once(" : ") else { continue };
            if !device.starts_with("md") {
                continue;
            }
            let more = lines[at + 1..].iter().take_while(|line| line.starts_with(char::is_whitespace));
            let more: Vec<&str> = more.copied().collect();
            Array::parse(rest, &more)
                .ok_or_else(|| parse_error(&path, format!("no blocks for {line:?}")))?
                .push(device, out);
        }
        for name in names_in(&self.block).unwrap_or_default() {
            let dir = self.block.join(&name).join("md");
            if !name.starts_with("md") || !dir.is_dir() {
                continue;
            }
            // Arrays without redundancy have no such file, and cannot be degraded.
            let raid_disks = number(dir.join("raid_disks"));
            let level = attribute(dir.join("level")).unwrap_or_default();
            if let Some(disks) = raid_disks {
                out.push(&RAID_DISKS, &[&name], disks);
            }
            let degraded = number(dir.join("degraded"));
            if let Some(lacks) = degraded.or((level == "raid0").then_some(0.0)) {
                out.push(&DEGRADED, &[&name], lacks);
            }
        }
        Ok(())
    }
}

impl Array {
    /// `rest` is what follows the name: `active raid1 sdb2[2](F) sda2[0]`; `more` the indented lines below.
    fn parse(rest: &str, more: &[&str]) -> Option<Self> {
        let active = rest.starts_with("active");
        let disks = rest.split_ascii_whitespace().filter(|word| word.contains('['));
        let (mut failed, mut spare, mut total) = (0.0, 0.0, 0.0);
        for disk in disks {
            total += 1.0;
            failed += f64::from(u8::from(disk.ends_with("(F)")));
            spare += f64::from(u8::from(disk.ends_with("(S)")));
        }
        let size = more.first()?;
        let mut words = size.split_ascii_whitespace();
        let blocks = parse_decimal(words.next()?)?;
        if words.next() != Some("blocks") {
            return None;
        }
        // `[2/1]`: two disks wanted, one there. Arrays without redundancy do not say; then all that are there are wanted.
        let counts = size.split_ascii_whitespace().find_map(|word| {
            let (wanted, there) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
            Some((parse_decimal(wanted)?, parse_decimal(there)?))
        });
        let plain = ["raid0", "linear"].iter().any(|level| rest.split_ascii_whitespace().any(|word| word == *level));
        let (required, there) = match counts {
            _ if !active => (0.0, 0.0),
            Some(counts) => counts,
            None if plain => (total, total - failed - spare),
            None => (0.0, 0.0),
        };
        let mut array = Self {
            state: if active { "active" } else { "inactive" },
            active: there,
            failed,
            spare,
            required,
            blocks,
            synced: blocks,
        };
        for line in &more[1..] {
            let work =
                [("recovery", "recovering"), ("reshape", "recovering"), ("resync", "resync"), ("check", "check")];
            let Some((_, state)) = work.iter().find(|(word, _)| line.contains(word)) else { continue };
            array.state = state;
            if line.contains("PENDING") || line.contains("DELAYED") {
                array.synced = 0.0;
            } else if let Some((_, progress)) = line.split_once('(') {
                array.synced = parse_decimal(progress.split('/').next()?)?;
            }
        }
        Some(array)
    }

    fn push(&self, device: &str, out: &mut Tick) {
        for state in STATES {
            out.push(&STATE, &[device, state], if state == self.state { 1.0 } else { 0.0 });
        }
        for (state, count) in [("active", self.active), ("failed", self.failed), ("spare", self.spare)] {
            out.push(&DISKS, &[device, state], count);
        }
        out.push(&REQUIRED, &[device], self.required);
        out.push(&BLOCKS, &[device], self.blocks);
        out.push(&SYNCED, &[device], self.synced);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;
    use crate::module::ModuleError;

    #[test]
    fn arrays_in_each_state() {
        let array = |state, active, failed, spare, required, blocks, synced| {
            Some(Array { state, active, failed, spare, required, blocks, synced })
        };
        let cases: [(&str, &[&str], Option<Array>); 6] = [
            (
                "active raid1 sdb1[1] sda1[0]",
                &["  100 blocks [2/2] [UU]"],
                array("active", 2.0, 0.0, 0.0, 2.0, 100.0, 100.0),
            ),
            (
                "active raid1 sdb2[2](F) sdc[1](S) sda2[0]",
                &["  200 blocks [2/1] [U_]", "  [=>..]  recovery =  8.5% (17/200) finish=17.0min speed=2K/sec"],
                array("recovering", 1.0, 1.0, 1.0, 2.0, 200.0, 17.0),
            ),
            (
                "active raid1 sda[0]",
                &["  9 blocks [1/1] [U]", "  resync=PENDING"],
                array("resync", 1.0, 0.0, 0.0, 1.0, 9.0, 0.0),
            ),
            ("active raid0 sda[0] sdb[1]", &["  9 blocks 64k chunks"], array("active", 2.0, 0.0, 0.0, 2.0, 9.0, 9.0)),
            ("inactive sda[0](S)", &["  9 blocks super"], array("inactive", 0.0, 0.0, 1.0, 0.0, 9.0, 9.0)),
            ("active raid1 sda[0]", &[], None),
        ];
        for (rest, more, expected) in cases {
            assert_eq!(Array::parse(rest, more), expected, "{rest}");
        }
    }

    #[test]
    fn mdstat_and_sysfs_together() {
        let tree = Tree::new(&[
            (
                "mdstat",
                "Personalities : [raid1]\nmd0 : active raid1 sda[0]\n   9 blocks [1/1] [U]\n\nunused devices: <none>\n",
            ),
            ("block/md0/md/raid_disks", "2\n"),
            ("block/md0/md/degraded", "1\n"),
            ("block/sda/size", "9"),
        ]);
        let got = dump(&mut MdAdm::new(tree.path(), tree.path()));
        assert!(got.contains(&r#"node_md_degraded{device="md0"} 1"#.to_owned()), "{got:#?}");
        assert!(got.contains(&r#"node_md_state{device="md0",state="active"} 1"#.to_owned()));
        assert_eq!(got.len(), 5 + 3 + 3 + 2);
        tree.write("mdstat", "md0 : active raid1 sda[0]\n");
        assert!(matches!(MdAdm::new(tree.path(), tree.path()).read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
