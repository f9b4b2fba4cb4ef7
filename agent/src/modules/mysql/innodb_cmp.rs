//! InnoDB's compressed pages.
//!
//! Source: information_schema.innodb_cmp and innodb_cmpmem. Right: PROCESS.
//! Shape:  counters by page size; those of the buffer pool by its instance too.
//! Units:  pages, operations; times in seconds (innodb_cmpmem counts microseconds, the exporter divides by 1,000).
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// Column, family, factor.
type Column = (&'static str, Desc, f64);

const CMP: &[Column] = &[
    (
        "compress_ops",
        Desc::counter(
            "mysql_info_schema_innodb_cmp_compress_ops_total",
            "Number of times a B-tree page of the size PAGE_SIZE has been compressed.",
        )
        .labels(&["page_size"]),
        1.0,
    ),
    (
        "compress_ops_ok",
        Desc::counter(
            "mysql_info_schema_innodb_cmp_compress_ops_ok_total",
            "Number of times a B-tree page of the size PAGE_SIZE has been successfully compressed.",
        )
        .labels(&["page_size"]),
        1.0,
    ),
    (
        "compress_time",
        Desc::counter(
            "mysql_info_schema_innodb_cmp_compress_time_seconds_total",
            "Total time in seconds spent in attempts to compress B-tree pages.",
        )
        .labels(&["page_size"]),
        1.0,
    ),
    (
        "uncompress_ops",
        Desc::counter(
            "mysql_info_schema_innodb_cmp_uncompress_ops_total",
            "Number of times a B-tree page of the size PAGE_SIZE has been uncompressed.",
        )
        .labels(&["page_size"]),
        1.0,
    ),
    (
        "uncompress_time",
        Desc::counter(
            "mysql_info_schema_innodb_cmp_uncompress_time_seconds_total",
            "Total time in seconds spent in uncompressing B-tree pages.",
        )
        .labels(&["page_size"]),
        1.0,
    ),
];

const CMPMEM: &[Column] = &[
    (
        "pages_used",
        Desc::counter(
            "mysql_info_schema_innodb_cmpmem_pages_used_total",
            "Number of blocks of the size PAGE_SIZE that are currently in use.",
        )
        .labels(&["page_size", "buffer_pool"]),
        1.0,
    ),
    (
        "pages_free",
        Desc::counter(
            "mysql_info_schema_innodb_cmpmem_pages_free_total",
            "Number of blocks of the size PAGE_SIZE that are currently available for allocation.",
        )
        .labels(&["page_size", "buffer_pool"]),
        1.0,
    ),
    (
        "relocation_ops",
        Desc::counter(
            "mysql_info_schema_innodb_cmpmem_relocation_ops_total",
            "Number of times a block of the size PAGE_SIZE has been relocated.",
        )
        .labels(&["page_size", "buffer_pool"]),
        1.0,
    ),
    (
        "relocation_time",
        Desc::counter(
            "mysql_info_schema_innodb_cmpmem_relocation_time_seconds_total",
            "Total time in seconds spent in relocating blocks.",
        )
        .labels(&["page_size", "buffer_pool"]),
        0.001,
    ),
];

/// Either of the two tables.
pub struct InnodbCmp {
    session: Arc<Session>,
    key: &'static str,
    statement: &'static str,
    columns: &'static [Column],
}

impl InnodbCmp {
    pub fn operations(session: Arc<Session>) -> Self {
        let statement = "SELECT page_size, compress_ops, compress_ops_ok, compress_time, uncompress_ops, uncompress_time \
                         FROM information_schema.innodb_cmp";
        Self { session, key: "innodb_cmp", statement, columns: CMP }
    }

    pub fn memory(session: Arc<Session>) -> Self {
        let statement = "SELECT page_size, buffer_pool_instance, pages_used, pages_free, relocation_ops, relocation_time \
                         FROM information_schema.innodb_cmpmem";
        Self { session, key: "innodb_cmpmem", statement, columns: CMPMEM }
    }
}

#[async_trait]
impl Module for InnodbCmp {
    fn descs(&self) -> Vec<Desc> {
        self.columns.iter().map(|(_, desc, _)| desc.clone()).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let statement = self.statement;
        let answer = self.session.query(self.key, move |_| Ok(Cow::Borrowed(statement))).await?;
        for row in answer.rows.iter() {
            let labels = [row.get("page_size"), row.get("buffer_pool_instance")].map(Option::unwrap_or_default);
            for (column, desc, factor) in self.columns {
                if let Some(value) = row.number(column) {
                    out.push(desc, &labels[..desc.labels.len()], value * factor);
                }
            }
        }
        Ok(())
    }
}
