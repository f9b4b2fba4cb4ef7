//! Random queries over random series: the engine against a plain evaluator. `LAMPAD_SEED` repeats a run, `LAMPAD_FUZZ` sets
//! how many queries.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod promql_support {
    #![allow(dead_code)]
    pub mod memory;
    pub mod naive;
}

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lampad_collector::query::{Engine, Features, Limits, Output, Span, is_absent, parse};
use lampad_collector::store::{Budget, Labels};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use promql_support::memory::Memory;
use promql_support::naive::{self, Query};

/// Counters and gauges at uneven times, with gaps, restarts and stale markers.
fn random_series(rng: &mut StdRng) -> Memory {
    let mut memory = Memory::default();
    for name in ["a_total", "b_total"] {
        for host in ["h1", "h2", "h3"] {
            for disk in ["x", "y"] {
                if rng.random_bool(0.2) {
                    continue;
                }
                let labels = Labels::from_pairs([("__name__", name), ("host", host), ("disk", disk)]);
                let mut value: f64 = 0.0;
                let mut at_ms = rng.random_range(0..20_000);
                while at_ms < 1_200_000 {
                    match rng.random_range(0..40) {
                        0 => memory.push(&labels, at_ms, lampad_proto::stale()),
                        1 => at_ms += 400_000,
                        2 => value = 0.0,
                        _ => {
                            value += f64::from(rng.random_range(0..8_i32));
                            memory.push(&labels, at_ms, value);
                        }
                    }
                    at_ms += rng.random_range(5_000..15_000);
                }
            }
        }
    }
    memory
}

#[test]
fn engine_agrees_with_the_plain_evaluator() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("LAMPAD_SEED").unwrap_or_else(|| rand::rng().random());
    let queries = number("LAMPAD_FUZZ").unwrap_or(2_000);
    println!("LAMPAD_SEED={seed} LAMPAD_FUZZ={queries}");
    let mut rng = StdRng::seed_from_u64(seed);
    let features = Features { delayed_name_removal: false, ..Features::ALL };
    let engine = Engine::new(Limits::default(), features);
    let mut memory = Memory::default();
    let (mut answered, mut refused, mut cells) = (0, 0, 0);
    for turn in 0..queries {
        if turn % 50 == 0 {
            memory = random_series(&mut rng);
        }
        let query = Query::random(&mut rng, 3);
        let (start_ms, step_ms) = (rng.random_range(0..300_000), rng.random_range(1_000..60_000));
        let span = Span::Range { start_ms, end_ms: start_ms + 14 * step_ms, step_ms };
        let text = query.text();
        let times = (0..15).map(|step| start_ms + step * step_ms);
        let plain: Result<Vec<_>, _> = times.map(|at_ms| naive::eval(&query, &memory, at_ms)).collect();
        let budget = Budget::new(50_000_000, Instant::now() + Duration::from_secs(60));
        let ours = engine.run(&memory, &parse(&text, features).unwrap(), span, None, &budget);
        let context = format!("LAMPAD_SEED={seed}, query {turn}: {text} from {start_ms} step {step_ms}");
        match (plain, ours) {
            (Err(_), Err(_)) => refused += 1,
            (Ok(plain), Ok(ours)) => {
                let Output::Matrix { rows, .. } = ours.output else { panic!("{context}: no matrix") };
                for (step, wanted) in plain.iter().enumerate() {
                    let got: BTreeMap<_, _> = rows.iter().map(|row| (row.labels.clone(), row.cells[step])).collect();
                    let got: BTreeMap<_, _> = got.into_iter().filter(|(_, cell)| !is_absent(*cell)).collect();
                    assert_eq!(
                        got.keys().collect::<Vec<_>>(),
                        wanted.keys().collect::<Vec<_>>(),
                        "{context}, step {step}"
                    );
                    for (labels, value) in wanted {
                        let cell = got[labels];
                        let size = value.abs().max(cell.abs());
                        let near = (cell - value).abs() <= 1e-6 * size.max(1e-3);
                        let same = cell == *value || near || (cell.is_nan() && value.is_nan());
                        assert!(same, "{context}, step {step}: {labels} is {cell}, should be {value}");
                        cells += 1;
                    }
                }
                answered += 1;
            }
            // A function of ranges looks for two series of one name over all steps, as in Prometheus; the plain one at each.
            (Ok(_), Err(error)) if error.to_string().contains("same labelset") => refused += 1,
            (plain, ours) => panic!("{context}: plain {:?}, ours {:?}", plain.is_ok(), ours.map(|_| ())),
        }
    }
    println!("{answered} answered with {cells} cells, {refused} refused by both");
    assert!(answered > queries / 2 && cells > queries);
}
