//! Which kernel and distribution the host runs.
//!
//! Source: `uname(2)`; `/etc/os-release`, else `/usr/lib/os-release`, see os-release(5); sysinfo for our own summary.
//! Shape:  `node_uname_info`, `node_os_info`, `lampad_host_info` with value 1; `node_os_version`.
//! Units:  the version as major.minor; end of support in seconds since 1970.
//! Errors: `Absent` without os-release.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{absent, attribute, parse_decimal};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const UNAME: Desc = Desc::gauge("node_uname_info", "Kernel, machine and names as uname tells them.").labels(&[
    "sysname",
    "release",
    "version",
    "machine",
    "nodename",
    "domainname",
]);

pub struct Uname;

impl Reader for Uname {
    fn descs(&self) -> Vec<Desc> {
        vec![UNAME]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let uname = rustix::system::uname();
        let fields =
            [uname.sysname(), uname.release(), uname.version(), uname.machine(), uname.nodename(), uname.domainname()];
        let fields = fields.map(|field| field.to_string_lossy().into_owned());
        out.push(&UNAME, &fields.each_ref().map(String::as_str), 1.0);
        Ok(())
    }
}

const OS_KEYS: [&str; 12] = [
    "BUILD_ID",
    "ID",
    "ID_LIKE",
    "IMAGE_ID",
    "IMAGE_VERSION",
    "NAME",
    "PRETTY_NAME",
    "VARIANT",
    "VARIANT_ID",
    "VERSION",
    "VERSION_CODENAME",
    "VERSION_ID",
];
const OS: Desc = Desc::gauge("node_os_info", "The distribution as os-release tells it.").labels(&[
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
]);
const OS_VERSION: Desc = Desc::gauge("node_os_version", "Major and minor version of the distribution as a number.")
    .labels(&["id", "id_like", "name"]);
const SUPPORT_END: Desc = Desc::gauge(
    "node_os_support_end_timestamp_seconds",
    "When the distribution's support ends, in seconds since 1970.",
);

pub struct Os {
    paths: [PathBuf; 2],
}

impl Os {
    pub fn new(rootfs: &Path) -> Self {
        Self { paths: ["etc/os-release", "usr/lib/os-release"].map(|name| rootfs.join(name)) }
    }
}

impl Reader for Os {
    fn descs(&self) -> Vec<Desc> {
        vec![OS, OS_VERSION, SUPPORT_END]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let text = self.paths.iter().find_map(attribute).ok_or_else(|| absent(&self.paths[0]))?;
        let known: HashMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key, unquote(value))).collect();
        let get = |key: &str| known.get(key).copied().unwrap_or_default();
        out.push(&OS, &OS_KEYS.map(get), 1.0);
        if let Some(version) = version(get("VERSION_ID")) {
            out.push(&OS_VERSION, &[get("ID"), get("ID_LIKE"), get("NAME")], version);
        }
        let end = get("SUPPORT_END").parse::<jiff::civil::Date>().ok();
        if let Some(end) = end.and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
            out.push(&SUPPORT_END, &[], end.timestamp().as_second() as f64);
        }
        Ok(())
    }
}

fn unquote(value: &str) -> &str {
    let value = value.trim();
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(value)
}

/// `20.04.2` is 20.04: the number holds major and minor only.
fn version(text: &str) -> Option<f64> {
    let end = text.match_indices('.').nth(1).map_or(text.len(), |(at, _)| at);
    parse_decimal(&text[..end])
}

const HOST: Desc = Desc::gauge("lampad_host_info", "What the host is, for lists of hosts.").labels(&[
    "host_name",
    "os",
    "kernel",
    "arch",
]);
const CORES: Desc =
    Desc::gauge("lampad_host_cpus", "CPUs of the host, by kind: logical, or physical cores.").labels(&["kind"]);

/// Dashboards look for this family to list hosts; the version is ours.
const BUILD: Desc =
    Desc::gauge("node_exporter_build_info", "The program that tells the node families, here Lampad's agent.")
        .labels(&["branch", "goarch", "goos", "goversion", "revision", "version", "tags"]);

/// Our own summary, for the collector's list of hosts: what node_exporter spreads over three families.
pub struct Host;

impl Reader for Host {
    fn descs(&self) -> Vec<Desc> {
        vec![HOST, CORES, BUILD]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        use sysinfo::System;
        let name = System::host_name().unwrap_or_default();
        let (os, kernel) =
            (System::long_os_version().unwrap_or_default(), System::kernel_version().unwrap_or_default());
        out.push(&HOST, &[&name, &os, &kernel, &System::cpu_arch()], 1.0);
        if let Ok(logical) = std::thread::available_parallelism() {
            out.push(&CORES, &["logical"], logical.get() as f64);
        }
        if let Ok(physical) = System::physical_core_count() {
            out.push(&CORES, &["physical"], physical as f64);
        }
        out.push(&BUILD, &crate::telemetry::build(), 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn os_release_is_read_with_its_quotes() {
        let tree = Tree::new(&[(
            "usr/lib/os-release",
            "# comment\nNAME=\"Ubuntu\"\nID='ubuntu'\nVERSION_ID=\"20.04.2\"\nSUPPORT_END=1970-01-02\nVERSION=\"20.04 (=)\"\n",
        )]);
        let got = dump(&mut Os::new(tree.path()));
        assert!(got[0].contains(r#"id="ubuntu",id_like="""#) && got[0].contains(r#"version="20.04 (=)""#), "{got:?}");
        assert_eq!(got[1], "node_os_support_end_timestamp_seconds 86400");
        assert_eq!(got[2], r#"node_os_version{id="ubuntu",id_like="",name="Ubuntu"} 20.04"#);
        for (text, number) in [("12", Some(12.0)), ("", None), ("rolling", None), ("9.3", Some(9.3))] {
            assert_eq!(version(text), number, "{text}");
        }
        assert!(matches!(Os::new(&tree.path().join("no")).read(&mut Tick::new()), Err(ModuleError::Absent { .. })));
    }

    #[test]
    fn this_host_has_a_name_and_a_kernel() {
        assert!(dump(&mut Uname)[0].starts_with(r#"node_uname_info{sysname="Linux",release="#));
        assert!(dump(&mut Host).iter().any(|line| line.starts_with("lampad_host_info{host_name=")));
    }
}
