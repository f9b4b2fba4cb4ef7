//! What is asked: what dashboards, alerts and people want of a fleet.

use lampad_tests::load::wide::{Fleet, NARROW, WIDE};

pub struct Question {
    pub text: String,
    pub path: String,
    pub params: Vec<(&'static str, String)>,
    /// Worth asking again and again when the server shall be kept busy.
    pub heavy: bool,
}

/// Panels of a dashboard: five minutes, a point every five seconds.
const PANEL: (i64, i64) = (300, 5);
/// And of an hour, every quarter of a minute.
const HOUR: (i64, i64) = (3600, 15);

pub fn questions(fleet: &Fleet) -> Vec<Question> {
    let end_s = fleet.end_ms / 1000;
    let instant = |text: &str| Question {
        text: text.to_owned(),
        path: "/api/v1/query".to_owned(),
        params: vec![("query", text.to_owned()), ("time", end_s.to_string())],
        heavy: false,
    };
    let range = |text: &str, (span, step): (i64, i64)| Question {
        text: format!("{text} over {span} s, step {step} s"),
        path: "/api/v1/query_range".to_owned(),
        params: vec![
            ("query", text.to_owned()),
            ("start", (end_s - span + step).to_string()),
            ("end", end_s.to_string()),
            ("step", step.to_string()),
        ],
        heavy: false,
    };
    let window = [("start", (end_s - 300).to_string()), ("end", end_s.to_string())];
    let values = |label: &str| Question {
        text: format!("values of {label}"),
        path: format!("/api/v1/label/{label}/values"),
        params: window.to_vec(),
        heavy: false,
    };
    let per_host = |metric: &str| format!("sum by (instance) (rate({metric}[1m]))");
    let one = Fleet::instance(fleet.hosts / 2);
    let mut all = vec![
        instant(&per_host(NARROW)),
        instant(&per_host(WIDE)),
        range(&per_host(NARROW), PANEL),
        heavy(range(&per_host(WIDE), PANEL)),
        range(&format!("sum by (mode) (rate({WIDE}[1m]))"), PANEL),
        range(&format!("max by (instance) ({WIDE})"), PANEL),
        range(&format!("quantile(0.9, rate({WIDE}[1m]))"), PANEL),
        range(&format!("rate({WIDE}{{instance=\"{one}\"}}[1m])"), PANEL),
        instant(&format!("topk(5, rate({NARROW}[1m]))")),
        instant(&format!("topk(5, rate({WIDE}[1m]))")),
        instant(&format!("avg_over_time({WIDE}[5m])")),
        instant(&format!("{{instance=\"{one}\", job=\"mysql\"}}")),
        instant(&format!("{NARROW} / on (instance) group_left () sum by (instance) ({WIDE})")),
        // All but what our collector says about itself.
        heavy(instant("count({__name__=~\".+\", job=~\"node|mysql\"})")),
        heavy(instant("count by (job) ({__name__=~\"bench_.*\"})")),
        values("__name__"),
        values("instance"),
        Question {
            text: format!("series of {WIDE}"),
            path: "/api/v1/series".to_owned(),
            params: std::iter::once(("match[]", WIDE.to_owned())).chain(window.clone()).collect(),
            heavy: false,
        },
    ];
    if i64::from(fleet.ticks) >= HOUR.0 {
        all.push(heavy(range(&per_host(WIDE), HOUR)));
        all.push(range(&per_host(NARROW), HOUR));
        all.push(instant(&format!("sum by (instance) (increase({WIDE}[50m]))")));
        all.push(instant(&format!("max_over_time({NARROW}[50m])")));
    }
    all
}

fn heavy(question: Question) -> Question {
    Question { heavy: true, ..question }
}
