//! Who is let in, who is sent away, and what each is told.

use super::*;

#[tokio::test]
async fn until_the_store_is_open_whoever_comes_is_told_to_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let progress = Progress::default();
    progress.begin_log(7, 96 << 20);
    let gate = Gate::new(progress, Limits::default().message_bytes);
    let served = gate.clone();
    tokio::spawn(async move { serve(served, TcpListenerStream::new(listener), std::future::pending()).await });
    let mut client = IngestClient::connect(url.clone()).await.unwrap();
    let refused = client.push(PushRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("replaying the log: 0 of 7 segments"), "{refused}");
    let refused = client.stream(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let server = server(true, Rules::default()).await;
    gate.open(server.ingest.clone());
    let answered = client.push(PushRequest::default()).await;
    assert!(answered.as_ref().map_or_else(Status::code, |_| Code::Ok) != Code::Unavailable, "{answered:?}");
}

#[tokio::test]
async fn a_second_stream_with_one_identity_is_refused_with_both_addresses() {
    let server = server(true, Rules::default()).await;
    let _first = server.connect(hello(1, "db1")).await.unwrap();
    let refused = server.connect(hello(1, "db1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(refused.message().matches("127.0.0.1:").count(), 2, "{refused}");
    let refused = server.connect(hello(2, "db1")).await.err().unwrap();
    assert!(refused.message().contains("--instance NAME"), "{refused}");
    assert!(server.connect(hello(2, "db2")).await.is_ok());
}

#[tokio::test]
async fn hellos_that_cannot_be_taken_say_why() {
    let server = server(true, Rules::default()).await;
    for (hello, code, part) in [
        (Hello { agent_id: vec![1], ..hello(1, "x") }, Code::InvalidArgument, "16 random bytes"),
        (Hello { labels: vec![], ..hello(1, "x") }, Code::InvalidArgument, "--instance NAME"),
        (Hello { protocol_min: 9, protocol_max: 9, ..hello(1, "x") }, Code::FailedPrecondition, "upgrade"),
    ] {
        let refused = server.connect(hello).await.err().unwrap();
        assert!(refused.code() == code && refused.message().contains(part), "{refused}");
    }
    let (up, stream) = mpsc::channel(1);
    up.send(Upward { message: Some(Up::Ping(Ping::default())) }).await.unwrap();
    let refused = server.client().await.stream(one_by_one(stream)).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn with_a_token_alone_streams_need_it_too() {
    let server = server(true, Rules { token: Some("word".into()), certificates: false }).await;
    let refused = server.connect(hello(1, "db1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("--token-file"), "{refused}");
    let (up, stream) = mpsc::channel(1);
    up.send(Upward { message: Some(Up::Hello(hello(1, "db1"))) }).await.unwrap();
    let mut request = tonic::Request::new(one_by_one(stream));
    request.metadata_mut().insert("authorization", "Bearer word".parse().unwrap());
    assert!(server.client().await.stream(request).await.is_ok());
}

#[tokio::test]
async fn pushes_need_the_token_and_streams_the_certificate() {
    let server = server(true, Rules { token: Some("word".into()), certificates: true }).await;
    let mut client = server.client().await;
    for (token, expected) in
        [(None, Code::Unauthenticated), (Some("Bearer no"), Code::Unauthenticated), (Some("Bearer word"), Code::Ok)]
    {
        let mut request = tonic::Request::new(request(1, vec![sample(0)]));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        let code = client.push(request).await.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, expected, "{token:?}");
    }
    assert_eq!(server.connect(hello(1, "db1")).await.err().unwrap().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn streams_end_with_a_reason_when_the_collector_does() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    server.ingest.shutdown.cancel();
    let ended = timeout(PATIENCE, agent.down.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("shutting down"), "{ended}");
}
