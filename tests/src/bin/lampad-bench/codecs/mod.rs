//! What codecs for a series' values give: bytes and time per sample, alone and with zstd over a value of many series.
//!
//! Time is CPU time. Every codec gets the same columns, one value per tick; what it wrote is read back and compared by bits. Of ours a tick
//! without a change costs nothing. The others get every tick too: they have no other way to say where a value stays.

mod bits;
mod whole;
mod xor;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use lampad_collector::store::probe;
use lampad_tests::load::host::Host;
use lampad_tests::load::recording;

/// Bytes of columns that share a value of the engine, about.
const VALUE_BYTES: usize = 24 * 1024;

/// Level of zstd: its own default.
const LEVEL: i32 = 3;

#[derive(clap::Args)]
pub struct Args {
    /// Recordings of `record`; without any the synthetic set alone is measured
    recordings: Vec<PathBuf>,
    /// Series of the synthetic set
    #[arg(long, default_value_t = 1000)]
    series: u32,
    /// Most ticks of a column
    #[arg(long, default_value_t = 720)]
    ticks: usize,
}

struct Codec {
    name: &'static str,
    encode: fn(&[f64]) -> Vec<u8>,
    decode: fn(&[u8], usize) -> Vec<f64>,
}

const CODECS: &[Codec] = &[
    Codec { name: "raw", encode: raw, decode: read_raw },
    Codec { name: "Gorilla", encode: xor::gorilla, decode: xor::read_gorilla },
    Codec { name: "Chimp", encode: xor::chimp, decode: xor::read_chimp },
    Codec { name: "decimal, delta, varint", encode: whole::varints, decode: whole::read_varints },
    Codec { name: "decimal, delta, bit packing", encode: whole::packed, decode: whole::read_packed },
    Codec { name: "as ALP", encode: whole::alp, decode: whole::read_alp },
    Codec { name: "pco", encode: pcodec, decode: read_pcodec },
    Codec { name: "ours, growing (codec 1)", encode: probe::grow, decode: probe::read_grown },
    Codec { name: "ours, sealed (codec 2)", encode: sealed, decode: read_sealed },
];

pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut sets = vec![("synthetic".to_owned(), synthetic(args.series, args.ticks))];
    for path in &args.recordings {
        let series = recording::read(path)?;
        let columns = series
            .into_iter()
            .flat_map(|series| series.values.chunks(args.ticks).map(<[f64]>::to_vec).collect::<Vec<_>>());
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        sets.push((name, columns.collect()));
    }
    for (name, columns) in sets {
        let samples: usize = columns.iter().map(Vec::len).sum();
        let changes: usize = columns.iter().map(|column| changes(column)).sum();
        let share = 100.0 * changes as f64 / samples as f64;
        println!("\n{name}: {} columns, {samples} samples, {share:.1} % of them changes\n", columns.len());
        println!("| codec | B/sample | write ns | read ns | with zstd B/sample | write ns | read ns |");
        println!("|---|---|---|---|---|---|---|");
        for codec in CODECS {
            println!("{}", row(codec, &columns, samples as f64)?);
        }
    }
    Ok(())
}

fn changes(column: &[f64]) -> usize {
    column.windows(2).filter(|pair| pair[0].to_bits() != pair[1].to_bits()).count()
}

fn synthetic(series: u32, ticks: usize) -> Vec<Vec<f64>> {
    let mut host = Host::new(1, series);
    let mut columns: Vec<Vec<f64>> = (0..series).map(|_| Vec::with_capacity(ticks)).collect();
    for _ in 0..ticks {
        host.step();
        columns.iter_mut().zip(0..).for_each(|(column, series)| column.push(host.value(series)));
    }
    columns
}

fn row(codec: &Codec, columns: &[Vec<f64>], samples: f64) -> anyhow::Result<String> {
    let began = cpu();
    let encoded: Vec<Vec<u8>> = columns.iter().map(|column| (codec.encode)(column)).collect();
    let write = cpu() - began;
    let began = cpu();
    for (bytes, column) in encoded.iter().zip(columns) {
        black_box((codec.decode)(bytes, column.len()));
    }
    let read = cpu() - began;
    for (bytes, column) in encoded.iter().zip(columns) {
        let same =
            (codec.decode)(bytes, column.len()).iter().map(|v| v.to_bits()).eq(column.iter().map(|v| v.to_bits()));
        ensure!(same, "{} does not give back a column of {} values", codec.name, column.len());
    }
    let bytes: usize = encoded.iter().map(Vec::len).sum();

    let mut values: Vec<Vec<u8>> = vec![Vec::new()];
    for column in &encoded {
        match values.last_mut() {
            Some(value) if value.len() + column.len() <= VALUE_BYTES => value.extend_from_slice(column),
            _ => values.push(column.clone()),
        }
    }
    let began = cpu();
    let small = values.iter().map(|value| zstd::bulk::compress(value, LEVEL)).collect::<Result<Vec<_>, _>>()?;
    let squeeze = cpu() - began;
    let began = cpu();
    for (small, value) in small.iter().zip(&values) {
        black_box(zstd::bulk::decompress(small, value.len())?);
    }
    let unsqueeze = cpu() - began;
    let small: usize = small.iter().map(Vec::len).sum();
    let ns = |took: Duration| took.as_secs_f64() * 1e9 / samples;
    Ok(format!(
        "| {} | {:.3} | {:.1} | {:.1} | {:.3} | {:.1} | {:.1} |",
        codec.name,
        bytes as f64 / samples,
        ns(write),
        ns(read),
        small as f64 / samples,
        ns(write + squeeze),
        ns(read + unsqueeze),
    ))
}

/// CPU time of this thread: a busy machine does not count.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn raw(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read_raw(bytes: &[u8], _: usize) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn pcodec(values: &[f64]) -> Vec<u8> {
    pco::standalone::simple_compress(values, &pco::ChunkConfig::default()).unwrap_or_default()
}

fn read_pcodec(bytes: &[u8], _: usize) -> Vec<f64> {
    pco::standalone::simple_decompress(bytes).unwrap_or_default()
}

/// With the codec's number before it, as a block has it.
fn sealed(values: &[f64]) -> Vec<u8> {
    let grown = probe::grow(values);
    let (codec, bytes) = probe::seal(&grown).map_or((1, grown), |sealed| (2, sealed));
    [&[codec], &*bytes].concat()
}

fn read_sealed(bytes: &[u8], ticks: usize) -> Vec<f64> {
    match bytes.split_first() {
        Some((2, bytes)) => probe::read_sealed(bytes, ticks),
        Some((_, bytes)) => probe::read_grown(bytes, ticks),
        None => Vec::new(),
    }
}
