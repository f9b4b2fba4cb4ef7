//! The streaming protocol as a sender writes it, straight from ingest.proto.

use lampad_proto::v1::{
    DecimalColumn, Dictionary, Frame, GroupDef, GroupTick, Hello, Label, Lane, MetricDef, MetricType, ModuleState,
    SequenceRange, SeriesDef, Upward, upward::Message,
};

use super::value::{changed, value};
use super::{METRIC, Plan, by_group, series_of};

/// Writes the messages of one agent. Keeps no state: every value is known from its tick.
#[derive(Debug, Clone)]
pub struct Encoder {
    pub agent: u32,
    pub id: [u8; 16],
    pub epoch: u64,
    series: u32,
    groups: u32,
    interval_ms: i64,
    percent: u8,
    clock_ahead_ms: i64,
    /// Time of tick 0, by the agent's clock.
    pub start_ms: i64,
}

impl Encoder {
    pub fn new(plan: &Plan, agent: u32, start_ms: i64) -> Self {
        let groups = plan.groups.clamp(1, plan.series.max(1));
        Self {
            agent,
            id: rand::random(),
            epoch: rand::random(),
            series: plan.series,
            groups,
            interval_ms: plan.interval_ms(),
            percent: plan.change_percent,
            clock_ahead_ms: plan.clock_ahead_ms,
            start_ms,
        }
    }

    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() + self.clock_ahead_ms
    }

    pub fn time_ms(&self, tick: u64) -> i64 {
        self.start_ms + tick as i64 * self.interval_ms
    }

    /// Ticks travel one to a frame; sequences begin with 1.
    pub fn sequence(tick: u64) -> u64 {
        tick + 1
    }

    pub fn hello(&self, next_tick: u64, pending: Vec<SequenceRange>) -> Upward {
        up(Message::Hello(Hello {
            protocol_min: 1,
            protocol_max: 1,
            agent_id: self.id.to_vec(),
            epoch: self.epoch,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: Plan::instance(self.agent),
            labels: vec![Label { name: "instance".to_owned(), value: Plan::instance(self.agent) }],
            modules: (0..self.groups)
                .map(|group| ModuleState {
                    name: format!("load.{group}"),
                    interval_ms: self.interval_ms as u32,
                    up: true,
                    error: String::new(),
                    absent: false,
                })
                .collect(),
            next_sequence: Self::sequence(next_tick),
            pending,
            clock_ms: self.now_ms(),
        }))
    }

    /// All names at once, on fresh tables. Symbols: 0 is empty, then fixed ones, groups' names, series' numbers.
    pub fn dictionary(&self, lane: Lane) -> Upward {
        let mut symbols = vec![String::new(), METRIC.to_owned(), "A value that names its owner.".to_owned()];
        symbols.extend(["job", "load", "series"].map(str::to_owned));
        let first_group = symbols.len() as u32;
        symbols.extend((0..self.groups).map(|group| format!("load.{group}")));
        let first_series = symbols.len() as u32;
        symbols.extend((0..self.series).map(|series| series.to_string()));
        up(Message::Dictionary(Dictionary {
            lane: lane.into(),
            reset: true,
            symbols,
            groups: (0..self.groups)
                .map(|group| GroupDef {
                    name: first_group + group,
                    labels: vec![3, 4],
                    interval_ms: self.interval_ms as u32,
                })
                .collect(),
            metrics: vec![MetricDef { name: 1, r#type: MetricType::Gauge.into(), help: 2, unit: 0 }],
            series: by_group(self.groups, self.series)
                .map(|(group, series)| SeriesDef { group, metric: 0, labels: vec![5, first_series + series] })
                .collect(),
        }))
    }

    /// One tick of every group. A key tick lists all values, another one those that changed since the tick before.
    pub fn frame(&self, lane: Lane, tick: u64, key: bool) -> Upward {
        up(Message::Frame(Frame {
            lane: lane.into(),
            sequence: Self::sequence(tick),
            base_ms: self.time_ms(tick),
            sent_ms: self.now_ms(),
            ticks: (0..self.groups).map(|group| self.group_tick(group, tick, key)).collect(),
        }))
    }

    fn group_tick(&self, group: u32, tick: u64, key: bool) -> GroupTick {
        let mut column = DecimalColumn::default();
        let mut last = 0;
        for series in series_of(group, self.groups, self.series) {
            if !key && !changed(series, tick, self.percent) {
                continue;
            }
            let base = if key { 0.0 } else { value(self.agent, series, tick - 1, self.percent) };
            column.refs.push(if column.refs.is_empty() { series } else { series - last });
            column.deltas.push((value(self.agent, series, tick, self.percent) - base) as i64);
            last = series;
        }
        let decimals = if column.refs.is_empty() { vec![] } else { vec![column] };
        GroupTick { group, offset_ms: 0, key, decimals, ..GroupTick::default() }
    }
}

fn up(message: Message) -> Upward {
    Upward { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lampad_proto::decimal;

    #[test]
    fn a_key_frame_and_the_changes_after_it_give_every_value() {
        let plan = Plan { series: 50, groups: 3, change_percent: 36, ..Plan::small("") };
        let encoder = Encoder::new(&plan, 12, 1_000_000);
        let mut held = vec![0.0; 50];
        for tick in 0..40 {
            let Some(Message::Frame(frame)) = encoder.frame(Lane::Live, tick, tick == 0).message else { panic!() };
            for column in frame.ticks.iter().flat_map(|tick| &tick.decimals) {
                let mut series = 0;
                for (gap, delta) in column.refs.iter().zip(&column.deltas) {
                    series += *gap as usize;
                    held[series] = decimal::apply(held[series], column.digits, *delta).unwrap();
                }
            }
            let wanted: Vec<f64> = (0..50).map(|series| value(12, series, tick, 36)).collect();
            assert_eq!(held, wanted, "tick {tick}");
        }
    }
}
