//! What comes over a stream: acks, key frames, and what waits.

use super::*;

/// A thousand agents came at once, and the acks of those who were served waited for the names of the others.
#[tokio::test]
async fn who_defines_much_waits_for_a_turn_and_the_others_go_on() {
    let server = server(true, Rules::default()).await;
    let turns = [server.ingest.defining.turn().await, server.ingest.defining.turn().await];
    let mut wide = server.connect(hello(1, "db1")).await.unwrap();
    wide.dictionary_of(300).await;
    wide.frame(1, true, &[(299, 1.0)]).await;
    let mut narrow = server.connect(hello(2, "db2")).await.unwrap();
    narrow.dictionary().await;
    narrow.frame(1, true, &[(0, 2.0)]).await;
    narrow.answers().await;
    assert!(timeout(Duration::from_millis(200), wide.answers()).await.is_err(), "it has a turn");
    let values = || server.recorder.ticks().iter().map(|tick| tick.values[0].1.clone()).collect::<Vec<_>>();
    assert_eq!(values(), [Value::Float(2.0)]);
    drop(turns);
    wide.answers().await;
    assert_eq!(values(), [Value::Float(2.0), Value::Float(1.0)]);
}

#[tokio::test]
async fn no_ack_leaves_before_the_flush_and_the_newest_covers_all() {
    let server = server(false, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    for sequence in 1..=3 {
        agent.frame(sequence, sequence == 1, &[(0, sequence as f64), (1, 1.0)]).await;
    }
    assert_eq!(agent.answers().await, [], "queryable is not durable");
    assert_eq!(server.recorder.ticks().len(), 3);
    server.recorder.flush();
    loop {
        if through(&agent.next().await) == Some(3) {
            break;
        }
    }
    let tick = &server.recorder.ticks()[0];
    let labels = server.recorder.labels(tick.group, tick.values[0].0);
    assert_eq!(labels, r#"a_total{instance="db1", job="node"}"#);
    assert_eq!(server.ingest.registry.agents()[0].state().jobs, [Job::at("node", None)].into());
}

#[tokio::test]
async fn series_defined_while_the_store_takes_nothing_are_taken_when_the_agent_comes_again() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    server.recorder.fill(true);
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    let ended = timeout(PATIENCE, agent.down.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "no refusal, no ack, but an end: {ended}");
    until("the stream's end", || !server.ingest.registry.agents()[0].state().streaming).await;
    let refused = server.client().await.push(request(1, vec![sample(0)])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    server.recorder.fill(false);
    let pending = vec![SequenceRange { first: 1, last: 1 }];
    let mut agent = server.connect(Hello { pending, ..hello(1, "db1") }).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    assert_eq!(through(&agent.next().await), Some(1));
    assert_eq!(server.recorder.ticks()[0].values.len(), 2);
}

#[tokio::test]
async fn series_that_are_too_many_in_a_minute_are_asked_for_after_it() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    server.recorder.allow_new_series(Some(1));
    agent.dictionary().await;
    let Down::Refusal(refusal) = agent.next().await else { panic!("no refusal") };
    assert_eq!((refusal.series, &*refusal.reason), (vec![1], "too many in a minute"));
    server.recorder.allow_new_series(None);
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    let mut answers = agent.answers().await;
    answers.sort_by_key(|answer| through(answer).is_some());
    assert!(matches!(&answers[..], [Down::KeyFrameWanted(_), Down::Ack(_)]), "{answers:?}");
    agent.dictionary().await;
    agent.frame(2, true, &[(0, 1.0), (1, 2.0)]).await;
    assert_eq!(agent.answers().await.iter().find_map(through), Some(2));
    let stored: Vec<usize> = server.recorder.ticks().iter().map(|tick| tick.values.len()).collect();
    assert_eq!(stored, [1, 2]);
}

/// Streams were ended when the log was full; their agents came again with key frames, and it was full at once.
#[tokio::test]
async fn a_disk_that_is_behind_slows_a_stream_and_does_not_end_it() {
    let server = server(false, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    until("the first frame", || server.recorder.ticks().len() == 1).await;
    server.recorder.keep_busy(true);
    agent.frame(2, false, &[(0, 2.0)]).await;
    until("the second frame", || server.recorder.ticks().len() == 2).await;
    agent.frame(3, false, &[(0, 3.0)]).await;
    server.recorder.flush();
    assert_eq!(through(&agent.next().await), Some(2), "acks go on");
    assert_eq!(server.recorder.ticks().len(), 2, "and nothing is read meanwhile");
    server.recorder.keep_busy(false);
    server.recorder.flush();
    until("the third frame", || server.recorder.ticks().len() == 3).await;
}

/// HTTP/2 of the server ended a connection with more than some 130 small pieces that nobody had read, long before its window
/// was full: when the disk was behind for some seconds, all agents came again at once.
#[tokio::test]
async fn a_backlog_of_small_frames_waits_in_the_stream_and_does_not_end_it() {
    const FRAMES: u64 = 3_000;
    let server = server(true, Rules::default()).await;
    let agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    until("the first frame", || server.recorder.ticks().len() == 1).await;
    server.recorder.keep_busy(true);
    let free = agent.up.capacity();
    for sequence in 2..=FRAMES {
        agent.frame(sequence, false, &[(0, sequence as f64)]).await;
    }
    // Nearly all that the stream's window holds, of some 45 bytes each.
    until("250 frames on their way", || agent.up.capacity() + FRAMES as usize >= free + 250).await;
    server.recorder.keep_busy(false);
    until("all frames", || server.recorder.ticks().len() == FRAMES as usize).await;
}

#[tokio::test]
async fn a_repeated_frame_is_acked_and_the_next_tick_lists_all() {
    let server = server(true, Rules::default()).await;
    let agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    until("the first frame", || server.recorder.ticks().len() == 1).await;
    drop(agent);
    until("the stream's end", || !server.ingest.registry.agents()[0].state().streaming).await;

    let pending = vec![SequenceRange { first: 1, last: 2 }];
    let mut agent = server.connect(Hello { pending, ..hello(1, "db1") }).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    assert_eq!(through(&agent.next().await), Some(1));
    agent.frame(2, false, &[(0, 5.0)]).await;
    assert_eq!(through(&agent.next().await), Some(2));
    let ticks = server.recorder.ticks();
    assert_eq!(ticks.len(), 2, "the repeated one is not stored again");
    let values: Vec<&Value> = ticks[1].values.iter().map(|(_, value)| value).collect();
    assert!(ticks[1].key);
    assert_eq!(values, [&Value::Float(5.0), &Value::Float(2.0)]);
}

#[tokio::test]
async fn an_epoch_that_fell_back_is_told_so() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1_005, true, &[]).await;
    assert_eq!(through(&agent.next().await), Some(1_005));
    drop(agent);
    until("the stream's end", || !server.ingest.registry.agents()[0].state().streaming).await;
    let refused = server.connect(hello(1, "db1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(server.connect(Hello { epoch: 8, ..hello(1, "db1") }).await.is_ok());
}

#[tokio::test]
async fn a_frame_without_base_gets_a_key_frame_and_a_hopeless_one_is_given_up() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.frame(1, true, &[]).await;
    let answers = agent.answers().await;
    assert!(matches!(&answers[..], [Down::KeyFrameWanted(_)]), "{answers:?}");
    for round in 0..2 {
        agent.dictionary().await;
        agent.frame(2, true, &[(0, 1.0), (9, 1.0)]).await;
        agent.frame(3, false, &[(0, 2.0)]).await;
        let answers = agent.answers().await;
        let wanted =
            |answer: &&Down| matches!(answer, Down::KeyFrameWanted(wanted) if wanted.reason.contains("series 9"));
        assert_eq!(answers.iter().filter(wanted).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().any(|answer| through(answer) == Some(2)), round == 1, "{answers:?}");
        assert_eq!(answers.iter().any(|answer| matches!(answer, Down::Refusal(_))), round == 1, "{answers:?}");
    }
    assert!(server.recorder.ticks().is_empty());
    agent.dictionary().await;
    agent.frame(3, true, &[(0, 2.0)]).await;
    assert!(agent.answers().await.iter().any(|answer| through(answer) == Some(3)));
}

#[tokio::test]
async fn an_agent_that_never_reads_delays_nobody_and_loses_nothing() {
    let server = server(true, Rules::default()).await;
    let stuck = server.connect(hello(1, "stuck")).await.unwrap();
    stuck.dictionary().await;
    // Its answers stay unread from here on; each frame would be one more.
    for sequence in 1..=3_000 {
        stuck.frame(sequence, sequence == 1, &[(0, sequence as f64)]).await;
    }
    until("all frames of the stuck agent", || server.recorder.ticks().len() == 3_000).await;
    let mut other = server.connect(hello(2, "other")).await.unwrap();
    other.dictionary().await;
    other.frame(1, true, &[(0, 1.0)]).await;
    assert_eq!(through(&other.next().await), Some(1));
}

#[tokio::test]
async fn a_clock_an_hour_off_costs_no_data() {
    let server = server(true, Rules::default()).await;
    let hour = 3_600_000;
    let agent = server.connect(Hello { clock_ms: now_ms() + hour, ..hello(1, "db1") }).await.unwrap();
    agent.dictionary().await;
    agent.frame_at(now_ms() + hour, 1, true, &[(0, 1.0)]).await;
    until("the frame", || server.recorder.ticks().len() == 1).await;
    let off_ms = (server.recorder.ticks()[0].timestamp_ms - now_ms()).abs();
    assert!(off_ms < 10_000, "{off_ms}");
    let state = server.ingest.registry.agents()[0].state();
    assert!((state.clock_shift_ms + hour).abs() < 10_000, "{}", state.clock_shift_ms);
}
