//! Tables: which release answers, from when on, and what is counted.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Proxy, Wire, get, saying, table, upstream, wait_for};
use evenkeel_core::ids::{FencingToken, Generation, Revision};
use evenkeel_core::table::TableRefused;
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};

#[test]
fn after_applied_no_request_reaches_the_old_release_and_none_is_lost() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let sides = ["one", "two"].map(saying);
    proxy.apply(table(1, listen, &[(100, &sides[..1]), (0, &sides[1..])]));
    // What must not be seen in an answer to a request sent from here on.
    let (barred, ended, sent) =
        (Arc::new(Mutex::new((1, "two"))), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (barred, ended, sent) = (barred.clone(), ended.clone(), sent.clone());
            std::thread::spawn(move || {
                let mut wire = Wire::to(listen);
                while !ended.load(Ordering::SeqCst) {
                    let bar = *barred.lock().unwrap();
                    let answer = wire.get("/");
                    // Only a bar that stood from before the request until after the answer tells anything.
                    if *barred.lock().unwrap() == bar {
                        assert_ne!(answer.text(), bar.1);
                    }
                    assert_eq!(answer.status(), 200);
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for generation in 2..60 {
        let first = generation % 2 == 1;
        let weights = if first { [100, 0] } else { [0, 100] };
        *barred.lock().unwrap() = (generation, "neither");
        proxy.apply(table(generation, listen, &[(weights[0], &sides[..1]), (weights[1], &sides[1..])]));
        *barred.lock().unwrap() = (generation, if first { "two" } else { "one" });
        let before = sent.load(Ordering::SeqCst);
        wait_for(|| (sent.load(Ordering::SeqCst) > before + 16).then_some(()));
    }
    ended.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let counted: u64 = proxy.report().releases.iter().map(|r| r.counts.requests()).sum();
    assert_eq!(counted, sent.load(Ordering::SeqCst));
}

#[test]
fn an_older_table_or_controller_is_refused() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let one = saying("one");
    let mut newer = table(5, listen, &[(100, &[one])]);
    newer.token = FencingToken(3);
    proxy.apply(newer.clone());
    let same = proxy.ask(&Ask::Apply { table: Box::new(newer.clone()) });
    assert!(matches!(same, Answer::Refused { why: TableRefused::OldGeneration { .. } }), "{same:?}");
    let mut usurped = table(6, listen, &[(100, &[one])]);
    usurped.token = FencingToken(2);
    let usurped = proxy.ask(&Ask::Apply { table: Box::new(usurped) });
    assert!(matches!(usurped, Answer::Refused { why: TableRefused::OldToken { .. } }), "{usurped:?}");
    assert!(matches!(proxy.ask(&Ask::Table), Answer::Table { table } if *table == newer));
}

#[test]
fn a_restarted_proxy_serves_by_the_table_on_disk_and_still_refuses_older_ones() {
    let mut proxy = Proxy::start(1);
    let (listen, one) = (proxy.listen(), saying("one"));
    proxy.apply(table(4, listen, &[(100, &[one])]));
    let (directory, boot) = (proxy.directory.clone(), proxy.report().boot);
    proxy.stop(Duration::ZERO);
    let socket = std::net::TcpListener::bind(listen).unwrap();
    let mut proxy = Proxy::start_in(directory, 2);
    proxy.listen_on(&socket);
    assert_eq!(get(listen, "/").text(), "one");
    let report = proxy.report();
    assert_eq!(report.generation, Generation(4));
    assert_ne!(report.boot, boot);
    let old = proxy.ask(&Ask::Apply { table: Box::new(table(3, listen, &[(100, &[one])])) });
    assert!(matches!(old, Answer::Refused { .. }), "{old:?}");
}

#[test]
fn a_disk_that_fails_does_not_keep_traffic_where_it_is() {
    let mut proxy = Proxy::start(1);
    let (listen, one) = (proxy.listen(), saying("one"));
    // A directory in the place of the file cannot be written over.
    std::fs::create_dir(proxy.directory.path().join("table.json.new")).unwrap();
    proxy.apply(table(1, listen, &[(100, &[one])]));
    assert_eq!(get(listen, "/").text(), "one");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it is about how long something takes")]
fn a_disk_that_hangs_holds_up_neither_traffic_nor_reports_nor_the_next_table() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let mut proxy = Proxy::start(1);
    let (listen, one, two) = (proxy.listen(), saying("one"), saying("two"));
    // Opening a pipe that nobody reads waits for ever.
    let pipe = proxy.directory.path().join("table.json.new");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut controls = [proxy.control(), proxy.control()];
    let began = std::time::Instant::now();
    for (control, (generation, side)) in controls.iter_mut().zip([(1, one), (2, two)]) {
        let table = table(generation, listen, &[(100, &[side])]);
        frame::write(control, &Ask::Apply { table: Box::new(table) }).unwrap();
        wait_for(|| (proxy.report().generation == Generation(generation)).then_some(()));
    }
    assert_eq!(get(listen, "/").text(), "two");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    for control in &mut controls {
        let answer = frame::read(control).unwrap();
        assert!(matches!(answer, Some(Answer::Applied { .. })), "{answer:?}");
    }
    // The disk is well again, and gets the newest.
    let aside = proxy.directory.path().join("pipe");
    std::fs::rename(&pipe, &aside).unwrap();
    let _reader = std::fs::File::options().read(true).write(true).open(aside).unwrap();
    let saved = proxy.directory.path().join("table.json");
    wait_for(|| std::fs::read_to_string(&saved).ok().filter(|text| text.contains(r#""generation":2"#)));
}

#[test]
fn without_weight_or_service_the_answer_is_503_with_retry_after() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let empty = get(listen, "/");
    assert_eq!((empty.status(), empty.field("retry-after")), (503, Some("1")));
    proxy.apply(table(1, listen, &[(0, &[saying("one")])]));
    let mut wire = Wire::to(listen);
    for _ in 0..2 {
        let answer = wire.get("/");
        assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
    }
    assert_eq!(proxy.report().refused, 3);
}

#[test]
fn a_preview_is_chosen_by_host_named_in_the_answer_and_counted_apart() {
    let mut proxy = Proxy::start(1);
    let (listen, preview) = (proxy.listen(), proxy.listen());
    let sides = ["one", "two", "three"].map(saying);
    let mut routes = table(1, listen, &[(100, &sides[..1]), (0, &sides[1..2]), (0, &[])]);
    routes.services[0].preview = Some(preview);
    proxy.apply(routes);
    let ask = |host: &str| Wire::to(preview).request(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    let (first, newest, none, gone) = (ask("r1.web.test"), ask("web.test"), ask("r3.web.test"), ask("r9.web.test"));
    assert_eq!((first.text(), first.field("evenkeel-release")), ("one", Some("r1")));
    assert_eq!((newest.text(), newest.field("evenkeel-release")), ("two", Some("r2")));
    assert_eq!((none.status(), gone.status()), (503, 404));
    assert_eq!(get(listen, "/").field("evenkeel-release"), None);
    let report = proxy.report();
    let counted: Vec<_> =
        report.releases.iter().map(|r| (r.revision.0, r.counts.requests(), r.preview.requests())).collect();
    assert_eq!(counted, [(1, 1, 1), (2, 0, 1)]);
}

#[test]
fn a_request_is_in_flight_until_its_answer_is_complete_also_after_its_replica_left_the_table() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let (finish, finished) = mpsc::channel::<()>();
    let finished = Mutex::new(finished);
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab");
            finished.lock().unwrap().recv().unwrap();
            wire.send("cd");
        }
    });
    proxy.apply(table(1, listen, &[(100, &[slow])]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(wire.read_head().unwrap().status(), 200);
    proxy.apply(table(2, listen, &[(0, &[]), (100, &[saying("two")])]));
    let busy = proxy.report().in_flight;
    assert_eq!((busy.len(), busy[0].requests, busy[0].replica.revision), (1, 1, Revision(1)));
    finish.send(()).unwrap();
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}

#[test]
fn the_listening_sockets_are_given_back_and_lead_to_the_same_address() {
    let mut proxy = Proxy::start(2);
    let addresses = [proxy.listen(), proxy.listen()];
    let mut control = proxy.control();
    frame::write(&mut control, &Ask::Sockets).unwrap();
    let Some(Answer::Sockets { addresses: given, sockets }) = frame::read(&mut control).unwrap() else { panic!() };
    let descriptors = frame::receive_descriptors(&control, given.len() * sockets).unwrap();
    let mut led: Vec<_> =
        descriptors.into_iter().map(|fd| std::net::TcpListener::from(fd).local_addr().unwrap()).collect();
    assert_eq!(led, given);
    led.sort();
    let mut expected = addresses.to_vec();
    expected.sort();
    assert_eq!(led, expected);
    assert!(matches!(proxy.ask(&Ask::Unlisten { address: addresses[0] }), Answer::Done));
    assert!(matches!(proxy.ask(&Ask::Unlisten { address: addresses[0] }), Answer::Done), "may be repeated");
}

#[test]
fn a_socket_on_which_nothing_can_be_accepted_is_not_taken_and_the_earlier_one_stays() {
    let mut proxy = Proxy::start(2);
    let address = proxy.listen();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let mut control = proxy.control();
    frame::write(&mut control, &Ask::Listen { address, sockets: 1 }).unwrap();
    frame::send_descriptors(&control, &[file.as_fd()]).unwrap();
    let answer = frame::read(&mut control).unwrap();
    assert!(matches!(answer, Some(Answer::Failed { .. })), "{answer:?}");
    proxy.apply(table(1, address, &[(100, &[saying("one")])]));
    for _ in 0..8 {
        assert_eq!(get(address, "/").text(), "one");
    }
}

#[test]
fn a_request_whose_release_failed_it_and_left_the_table_is_answered_by_the_table_in_force() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let breaking = upstream(move |stream| {
        let _head = Wire::over(stream.try_clone().unwrap()).read_head();
        let _ = told.lock().unwrap().recv();
    });
    proxy.apply(table(1, listen, &[(100, &[breaking])]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    proxy.apply(table(2, listen, &[(0, &[]), (100, &[saying("two")])]));
    go_on.send(()).unwrap();
    assert_eq!(wire.read_message().unwrap().text(), "two");
    let counted = proxy.report().releases;
    assert_eq!((counted.len(), counted[0].revision, counted[0].counts.no_answer), (1, Revision(1), 1));
}
