//! Plain pushes.

use super::*;

#[tokio::test]
async fn a_push_is_answered_when_it_is_durable_and_stored_once() {
    let server = server(false, Rules::default()).await;
    let mut client = server.client().await;
    let mut pushing = client.clone();
    let far = now_ms() + 3_600_000;
    let samples = vec![sample(0), sample(1_000), sample(far), sample(-5)];
    let call = tokio::spawn(async move { pushing.push(request(1, samples)).await });
    until("the samples", || server.recorder.ticks().len() == 2).await;
    assert!(!call.is_finished(), "answered before the flush");
    server.recorder.flush();
    let reply = call.await.unwrap().unwrap().into_inner();
    assert_eq!(reply.stored, 2);
    let reasons: Vec<&str> = reply.refused.iter().map(|refusal| &*refusal.reason).collect();
    assert!(reasons.iter().any(|reason| reason.contains("10 minutes")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("before 1970")), "{reasons:?}");

    let again = client.push(request(1, vec![sample(0)])).await.unwrap().into_inner();
    assert_eq!((again.stored, server.recorder.ticks().len()), (1, 2));
}

/// Each run of a job that cron starts is a pusher of its own; it made a group, and a place of the series in it, for ever.
#[tokio::test]
async fn pushers_of_one_job_and_instance_share_a_group() {
    let server = server(true, Rules::default()).await;
    let mut client = server.client().await;
    for pusher in 1..=3 {
        let request =
            PushRequest { pusher_id: vec![pusher; 16], ..request(0, vec![sample(i64::from(pusher) * 1_000)]) };
        assert_eq!(client.push(request).await.unwrap().into_inner().stored, 1);
    }
    let ticks = server.recorder.ticks();
    assert_eq!(ticks.len(), 3, "one sequence, three pushers");
    assert!(ticks.iter().all(|tick| (tick.group, tick.values[0].0) == (ticks[0].group, ticks[0].values[0].0)));
}
