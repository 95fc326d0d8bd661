//! Who am I, on loopback: a pretended metadata server, the key-value service with many clients, agreement among pretended processes.

use simclr::cluster::agreement::{Group, Trouble};
use simclr::cluster::doctor::{State, chips, lock, metadata, others, runtime};
use simclr::cluster::identity::{Identity, Source, Wanted};
use simclr::cluster::metadata::{Metadata, TRIES, Worker};
use simclr::cluster::store::{Server, Store};
use simclr::train::processes::Processes;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// Enough for loopback on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Before a pretended server is asked again.
const PAUSE: Duration = Duration::from_millis(1);

/// What the pretended server answers to a path below `attributes/`.
#[derive(Clone)]
enum Answer {
    Text(&'static str),
    Status(u16),
    /// So often a status of a server that is not ready, then a text.
    AtLast(u32, &'static str),
    /// Never.
    Silence,
    /// Not even HTTP.
    Noise,
}

/// A metadata server; everything else is 404. It refuses requests without Google's header.
fn server(answers: &[(&'static str, Answer)]) -> String {
    counting_server(answers).0
}

/// With a count of what it is asked.
fn counting_server(answers: &[(&'static str, Answer)]) -> (String, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let asked = count.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut answers: HashMap<&str, Answer> = answers.iter().cloned().collect();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0u8];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or("");
            let key = path
                .strip_prefix("/computeMetadata/v1/instance/")
                .map(|key| key.strip_prefix("attributes/").unwrap_or(key))
                .unwrap_or("");
            let flavoured = request
                .to_ascii_lowercase()
                .contains("metadata-flavor: google");
            asked.fetch_add(1, Ordering::SeqCst);
            let (status, text) = match answers.get_mut(key) {
                _ if !flavoured => (403, "no flavour"),
                Some(Answer::Text(text) | Answer::AtLast(0, text)) => (200, *text),
                Some(Answer::AtLast(left, _)) => {
                    *left -= 1;
                    (503, "not yet")
                }
                Some(Answer::Status(status)) => (*status, "refused"),
                Some(Answer::Silence) => {
                    silent.push(stream);
                    continue;
                }
                Some(Answer::Noise) => {
                    stream.write_all(b"\x00\x01garbage\r\n\r\n").ok();
                    continue;
                }
                None => (404, "no such key"),
            };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    (address, count)
}

fn find(answers: &[(&'static str, Answer)]) -> Result<Identity, String> {
    find_as(Wanted::default(), &[], answers)
}

fn find_as(
    wanted: Wanted,
    environment: &[(&str, &str)],
    answers: &[(&'static str, Answer)],
) -> Result<Identity, String> {
    // Where a right answer is expected a busy machine may take its time; silence is not waited for.
    let silent = |(_, answer): &(&str, Answer)| matches!(answer, Answer::Silence);
    let patience = if answers.iter().any(silent) {
        Duration::from_millis(500)
    } else {
        Duration::from_secs(10)
    };
    let metadata = Metadata::at(&server(answers), patience, PAUSE);
    let variable = |name: &str| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.to_string())
    };
    Identity::find(wanted, &variable, Some(&metadata)).map_err(|error| error.to_string())
}

#[test]
fn a_worker_knows_its_place_from_both_forms_of_metadata() {
    use Answer::Text;
    for endpoints in [
        "unknown:unknown:10.0.0.1,unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3,unknown:unknown:10.0.0.4",
        "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4",
    ] {
        let found = find(&[
            ("agent-worker-number", Text("2")),
            ("worker-network-endpoints", Text(endpoints)),
            ("accelerator-type", Text("v3-32")),
        ])
        .unwrap();
        assert_eq!((found.process, found.processes), (2, 4));
        assert_eq!(found.coordinator.as_deref(), Some("10.0.0.1:8476"));
        assert_eq!(found.hosts[3], "10.0.0.4");
        assert_eq!(found.accelerator.as_deref(), Some("v3-32"));
        assert_eq!(found.source, Source::Metadata);
    }
    // Only tpu-env: a single host.
    let found = find(&[(
        "tpu-env",
        Text("WORKER_ID: '0'\nACCELERATOR_TYPE: 'v5litepod-4'\n"),
    )])
    .unwrap();
    assert_eq!((found.process, found.processes), (0, 1));
    assert_eq!(found.accelerator.as_deref(), Some("v5litepod-4"));
    // Two slices that work together.
    let found = find(&[
        ("agent-worker-number", Text("1")),
        ("worker-network-endpoints", Text("10.0.1.1,10.0.1.2")),
        (
            "tpu-env",
            Text("MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n"),
        ),
    ])
    .unwrap();
    assert_eq!((found.process, found.processes), (3, 4));
    assert_eq!(found.coordinator.as_deref(), Some("10.0.0.1:8476"));
}

#[test]
fn a_machine_that_is_no_tpu_vm_is_alone() {
    let found = find(&[]).unwrap();
    assert_eq!(
        (found.process, found.processes, found.source),
        (0, 1, Source::Alone)
    );
}

#[test]
fn a_server_that_is_slow_refuses_or_talks_nonsense_is_an_error() {
    use Answer::{Noise, Silence, Status, Text};
    for (answers, words) in [
        (vec![("tpu-env", Silence)], "cannot be asked"),
        (vec![("tpu-env", Status(503))], "status 503"),
        (vec![("tpu-env", Noise)], "cannot be asked"),
        (
            vec![("agent-worker-number", Text("two"))],
            "agent-worker-number is `two`",
        ),
        (
            vec![
                ("agent-worker-number", Text("0")),
                ("worker-network-endpoints", Text("<html>busy</html>")),
            ],
            "worker-network-endpoints is `<html>busy</html>`",
        ),
        (
            vec![
                ("agent-worker-number", Text("5")),
                ("worker-network-endpoints", Text("10.0.0.1,10.0.0.2")),
            ],
            "5 of 2 workers",
        ),
    ] {
        let error = find(&answers).unwrap_err();
        assert!(error.contains(words), "{error}");
        assert!(
            error.contains("TPU_WORKER_HOSTNAMES"),
            "no remedy in: {error}"
        );
    }
    let nobody = Metadata::at("127.0.0.1:9", Duration::from_millis(500), PAUSE);
    let error = Identity::find(Wanted::default(), &|_| None, Some(&nobody)).unwrap_err();
    assert!(error.to_string().contains("cannot be asked"), "{error}");
}

#[test]
fn a_server_that_is_not_ready_is_asked_again_and_one_that_refuses_is_not() {
    use Answer::{AtLast, Noise, Status, Text};
    let late = TRIES - 1;
    let found = find(&[
        ("agent-worker-number", AtLast(late, "2")),
        ("worker-network-endpoints", AtLast(late, "a,b,c")),
        ("accelerator-type", AtLast(1, "v3-32")),
    ])
    .unwrap();
    assert_eq!((found.process, found.processes), (2, 3));
    let two = || Some(Some("2".to_string()));
    for (answer, times, found) in [
        (Status(503), TRIES, None),
        (Status(429), TRIES, None),
        (Noise, TRIES, None),
        (AtLast(TRIES, "2"), TRIES, None),
        (AtLast(1, "2"), 2, two()),
        (Status(403), 1, None),
        (Status(404), 1, Some(None)),
        (Text("2"), 1, two()),
    ] {
        let (address, asked) = counting_server(&[("key", answer)]);
        let told = Metadata::at(&address, SOON, PAUSE).get("key");
        assert_eq!(told.ok(), found);
        assert_eq!(asked.load(Ordering::SeqCst), times);
    }
}

/// A worker of several that hears of no others does not take itself for a run of its own.
#[test]
fn a_worker_without_the_list_of_all_is_an_error_unless_it_may_be_alone() {
    use Answer::Text;
    for found in [
        find(&[("agent-worker-number", Text("3"))]),
        find(&[("tpu-env", Text("WORKER_ID: '3'\n"))]),
    ] {
        let error = found.unwrap_err();
        assert!(
            error.contains("worker-network-endpoints") && error.contains("this is worker 3"),
            "{error}"
        );
        assert!(error.contains("--processes 1"), "no remedy in: {error}");
    }
    let first = find(&[("agent-worker-number", Text("0"))]).unwrap();
    assert_eq!((first.process, first.processes), (0, 1));
}

#[test]
fn a_machine_hears_that_it_is_taken_away() {
    let told = |answers: &[(&'static str, Answer)]| {
        Metadata::at(&server(answers), Duration::from_secs(10), PAUSE).going_away()
    };
    let stays = [
        ("preempted", Answer::Text("FALSE")),
        ("maintenance-event", Answer::Text("NONE")),
    ];
    assert!(!told(&stays).unwrap());
    assert!(!told(&[]).unwrap(), "a server that does not tell");
    assert!(told(&[("preempted", Answer::Text("TRUE\n"))]).unwrap());
    let ends = Answer::Text("TERMINATE_ON_HOST_MAINTENANCE");
    assert!(told(&[("maintenance-event", ends)]).unwrap());
    assert!(told(&[("preempted", Answer::Status(500))]).is_err());
}

#[test]
fn kubernetes_tells_by_variables() {
    let gke = [
        ("TPU_WORKER_ID", "1"),
        ("TPU_WORKER_HOSTNAMES", "tpu-0.svc,tpu-1.svc"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
    ];
    let found = find_as(Wanted::default(), &gke, &[]).unwrap();
    assert_eq!(
        (found.process, found.processes, found.source),
        (1, 2, Source::Environment)
    );
    assert_eq!(found.coordinator.as_deref(), Some("tpu-0.svc:8476"));
    let bad = [("TPU_WORKER_ID", "2"), ("TPU_WORKER_HOSTNAMES", "a,b")];
    let error = find_as(Wanted::default(), &bad, &[]).unwrap_err();
    assert!(error.contains("2 among a,b"), "{error}");
}

/// Addresses are those of libtpu's own exchange: our service must not take one of their ports.
#[test]
fn kubernetes_may_tell_by_addresses() {
    for (names, port) in [
        ("tpu-0.svc:8471,tpu-1.svc:8471", 8476),
        ("tpu-0.svc:8476,tpu-1.svc:8476", 8477),
        (
            "tpu-0.svc:8476, tpu-0.svc:8477, tpu-1.svc:8476, tpu-1.svc:8477",
            8478,
        ),
        ("tpu-0.svc,tpu-1.svc", 8476),
    ] {
        let count = names.split(',').count();
        let told = [("TPU_WORKER_ID", "1"), ("TPU_PROCESS_ADDRESSES", names)];
        let found = find_as(Wanted::default(), &told, &[]).unwrap();
        assert_eq!(
            (found.process, found.processes, found.source),
            (1, count, Source::Environment)
        );
        assert_eq!(found.coordinator, Some(format!("tpu-0.svc:{port}")));
        assert_eq!(found.hosts[count - 1], "tpu-1.svc");
        // Where hosts are told, too, these are meant.
        let told = [&told[..], &[("TPU_WORKER_HOSTNAMES", "a,b,c")]].concat();
        let found = find_as(Wanted::default(), &told, &[]).unwrap();
        assert_eq!(found.processes, 3);
        assert_eq!(found.coordinator, Some(format!("a:{port}")));
    }
    let bad = [("TPU_WORKER_ID", "2"), ("TPU_PROCESS_ADDRESSES", "a:1,b:1")];
    let error = find_as(Wanted::default(), &bad, &[]).unwrap_err();
    assert!(
        error.contains("TPU_PROCESS_ADDRESSES is `2 among a,b`"),
        "{error}"
    );
}

#[test]
fn what_the_user_says_goes_first() {
    let gke = [("TPU_WORKER_ID", "1"), ("TPU_WORKER_HOSTNAMES", "a,b")];
    let wanted = |process, processes, coordinator| Wanted {
        process,
        processes,
        coordinator,
        chips: 4,
    };
    let found = find_as(wanted(Some(3), Some(4), Some("gpu0:1234")), &gke, &[]).unwrap();
    assert_eq!(
        (found.process, found.processes, found.source),
        (3, 4, Source::Flags)
    );
    assert_eq!(found.coordinator.as_deref(), Some("gpu0:1234"));
    // Also where the server that would be asked does not answer.
    let broken = [("agent-worker-number", Answer::Status(503))];
    let by_hand = wanted(Some(3), Some(4), Some("gpu0:1234"));
    assert_eq!(find_as(by_hand, &[], &broken).unwrap().process, 3);
    let partly = wanted(Some(3), Some(4), None);
    let error = find_as(partly, &[], &broken).unwrap_err();
    assert!(error.contains("status 503"), "{error}");
    // One host out of a pod: libtpu must not wait for the others, nor this program for a server that does not answer.
    let silent = ("agent-worker-number", Answer::Silence);
    for (chips, bounds) in [(1, "1,1,1"), (4, "2,2,1"), (8, "2,4,1")] {
        let alone = Wanted {
            chips,
            ..wanted(None, Some(1), None)
        };
        let found = find_as(alone, &gke, std::slice::from_ref(&silent)).unwrap();
        assert_eq!((found.process, found.processes), (0, 1));
        for (name, value) in [
            ("TPU_HOST_BOUNDS", "1,1,1"),
            ("TPU_CHIPS_PER_PROCESS_BOUNDS", bounds),
        ] {
            assert!(found.variables.contains(&(name, value.into())), "{name}");
        }
    }
    // Who has chosen chips himself keeps his choice.
    let chosen = [("TPU_VISIBLE_CHIPS", "0")];
    let found = find_as(wanted(None, Some(1), None), &chosen, &[]).unwrap();
    assert!(found.variables.is_empty(), "{:?}", found.variables);
    let nowhere = Wanted {
        chips: 0,
        ..wanted(None, Some(1), None)
    };
    assert!(find_as(nowhere, &[], &[]).unwrap().variables.is_empty());
    for (bad, words) in [
        (
            wanted(Some(4), Some(4), Some("a")),
            "below the number of processes",
        ),
        (wanted(Some(1), None, None), "not given"),
        (wanted(None, Some(2), None), "not given"),
    ] {
        let error = find_as(bad, &gke, &[]).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let error = find_as(wanted(Some(0), Some(2), None), &[], &[]).unwrap_err();
    assert!(error.contains("give its HOST:PORT"), "{error}");
}

fn service() -> (Server, String) {
    let server = Server::start("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    (server, address)
}

#[test]
fn eight_clients_exchange_values_while_one_dies() {
    let (_server, address) = service();
    let clients: Vec<_> = (0..8u8)
        .map(|own| {
            let address = address.clone();
            thread::spawn(move || {
                let store = Store::connect(&address, SOON).unwrap();
                for round in 0..50u8 {
                    // Bytes of all kinds in keys and values; a value of several buffers once in a while.
                    let value = vec![own ^ round; if round % 10 == 0 { 300_000 } else { 3 }];
                    store.put(&[0, round, own], &value).unwrap();
                    for other in 0..8u8 {
                        let found = store.get(&[0, round, other], SOON).unwrap().unwrap();
                        assert!(found.iter().all(|&byte| byte == other ^ round));
                    }
                }
            })
        })
        .collect();
    // One that says it will send 1000 bytes and goes; one that talks another language; one that waits for ever, and goes.
    let mut dies = TcpStream::connect(&address).unwrap();
    dies.write_all(&[1, 232, 3, 0, 0, 7, 7]).unwrap();
    drop(dies);
    let mut stranger = TcpStream::connect(&address).unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut waits = TcpStream::connect(&address).unwrap();
    let patience = u64::MAX.to_le_bytes();
    waits.write_all(&[2, 1, 0, 0, 0, 9, 8, 0, 0, 0]).unwrap();
    waits.write_all(&patience[..3]).unwrap();
    drop(waits);
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_key_has_one_value_and_waiting_ends() {
    let (_server, address) = service();
    let store = Store::connect(&address, SOON).unwrap();
    assert_eq!(store.try_get(b"a").unwrap(), None);
    assert_eq!(store.get(b"a", Duration::from_millis(20)).unwrap(), None);
    store.put(b"a", b"").unwrap();
    assert_eq!(store.try_get(b"a").unwrap(), Some(Vec::new()));
    store.put(b"a", b"").unwrap();
    let error = store.put(b"a", b"other").unwrap_err().to_string();
    assert!(error.contains("another value already"), "{error}");
    // Threads of one client wait at the same time.
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| store.get(b"late", SOON)))
            .collect();
        store.put(b"late", b"x").unwrap();
        for thread in waiting {
            assert_eq!(thread.join().unwrap().unwrap(), Some(b"x".to_vec()));
        }
    });
    let error = Server::start(&address).unwrap_err().to_string();
    assert!(error.contains("cannot be started"), "{error}");
    let error = Store::connect("127.0.0.1:9", Duration::ZERO)
        .unwrap_err()
        .to_string();
    assert!(error.contains("start process 0 first"), "{error}");
}

#[test]
fn a_member_that_falls_silent_is_lost_and_one_that_leaves_is_not() {
    let (_server, address) = service();
    let store = Store::connect(&address, SOON).unwrap();
    let soon = Duration::from_millis(20);
    assert_eq!(store.beat(b"1", SOON).unwrap(), None);
    // This one goes in order; a word of its that comes late changes nothing.
    store.beat(b"2", soon).unwrap();
    store.leave(b"2").unwrap();
    store.beat(b"2", soon).unwrap();
    // This one says nothing more, its connection still open.
    store.beat(b"3", soon).unwrap();
    let lost = loop {
        if let Some(lost) = store.beat(b"1", SOON).unwrap() {
            break lost;
        }
    };
    assert_eq!(lost, b"3");
    store.beat(b"3", SOON).unwrap();
    assert_eq!(store.beat(b"1", SOON).unwrap(), None, "it came back");
    // This one's connection breaks, however long it wanted to be waited for.
    let dies = Store::connect(&address, SOON).unwrap();
    dies.beat(b"4", Duration::from_secs(3600)).unwrap();
    drop(dies);
    while store.beat(b"1", SOON).unwrap().is_none() {
        thread::sleep(soon);
    }
    assert_eq!(store.beat(b"1", SOON).unwrap(), Some(b"4".to_vec()));
}

/// An address behind which a service can be exchanged for another one.
struct Switch {
    address: String,
    target: Arc<Mutex<String>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Switch {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let switch = Switch {
            address: listener.local_addr().unwrap().to_string(),
            target: Arc::new(Mutex::new(target)),
            streams: Arc::default(),
        };
        let (target, streams) = (switch.target.clone(), switch.streams.clone());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(target.lock().unwrap().as_str()).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || std::io::copy(&mut from, &mut to).ok());
                }
                streams.lock().unwrap().extend([near, far]);
            }
        });
        switch
    }

    /// Breaks every connection, and leads new ones elsewhere.
    fn turn_to(&self, target: String) {
        *self.target.lock().unwrap() = target;
        for stream in self.streams.lock().unwrap().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

#[test]
fn a_later_start_is_not_taken_for_an_earlier_one() {
    let (_earlier, address) = service();
    let (_later, later) = service();
    let switch = Switch::to(address.clone());
    let join = |address: &str, process| {
        let store = Store::connect(address, SOON).unwrap();
        Group::join(store, process, 2)
    };
    let group = join(&switch.address, 1).unwrap();
    assert!(group.trouble().is_none());
    // A worker that was killed, and is back before it was missed.
    let error = join(&address, 1).unwrap_err();
    let words = error.to_string();
    assert!(words.contains("number 1 of this run is taken"), "{words}");
    assert_eq!(error.class().exit_code(), 75, "to be started again");
    // Process 0 was killed, and is back before this one missed it.
    switch.turn_to(later);
    match group.trouble() {
        Some(Trouble::Lost(error)) => {
            let words = error.to_string();
            assert!(words.contains("another start of the run"), "{words}");
            assert_eq!(error.class().exit_code(), 75);
        }
        other => panic!("{other:?}"),
    }
}

/// Pretended processes, each on a thread with a client of its own.
fn processes<R: Send + 'static>(
    count: usize,
    work: impl Fn(usize, Group) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let (_server, address) = service();
    let work = Arc::new(work);
    let threads: Vec<_> = (0..count)
        .map(|process| {
            let (address, work) = (address.clone(), work.clone());
            thread::spawn(move || {
                let store = Store::connect(&address, SOON).unwrap();
                work(process, Group::join(store, process, count).unwrap())
            })
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

#[test]
fn a_process_that_runs_something_else_is_found_before_the_first_step() {
    let found = processes(4, |process, group| {
        let hash = if process == 2 { "bbbb" } else { "aaaa" };
        group.all_here("start", Duration::from_secs(60)).unwrap();
        group
            .same(&[("module", hash)])
            .map_err(|error| error.to_string())
    });
    for (process, result) in found.iter().enumerate() {
        match result {
            Ok(()) => assert!([1, 3].contains(&process)),
            // Process 0 hears of it, too, and does not begin.
            Err(error) => {
                assert!([0, 2].contains(&process));
                assert!(
                    error.contains("process 2 has another module (bbbb) than process 0 (aaaa)"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn processes_that_read_for_each_other_are_told() {
    let told = processes(2, |_, group| {
        let processes = Processes::of(group);
        [1, 2, 3, 16].map(|pipelines| processes.read_for_each_other(pipelines))
    });
    for [one, two, three, sixteen] in told {
        let one = one.expect("words");
        assert!(one.contains("input_pipelines is 1"), "{one}");
        assert!(one.contains("with 2, or a multiple"), "{one}");
        assert!(three.is_some() && two.is_none() && sixteen.is_none());
    }
    assert!(Processes::default().read_for_each_other(1).is_none());
}

#[test]
fn all_processes_stop_at_one_step_whoever_is_asked() {
    for asked in 0..3usize {
        for launch in [1u64, 7] {
            let barrier = Arc::new(Barrier::new(3));
            let stopped = processes(3, move |process, group| {
                let mut step = 0;
                loop {
                    // A launch needs all processes to begin, and ends for each in its own time.
                    barrier.wait();
                    step += launch;
                    if process == (asked + 1) % 3 {
                        thread::sleep(Duration::from_millis(2));
                    }
                    let asked = (process == asked && step >= 5 * launch).then_some(1);
                    if let Some(reason) = group.stop_now(step, launch, asked).unwrap() {
                        assert_eq!(reason, 1);
                        return step;
                    }
                    assert!(step < 100 * launch, "process {process} never stops");
                }
            });
            assert!(
                stopped.iter().all(|&step| step == stopped[0]),
                "{stopped:?}"
            );
            assert!(stopped[0] >= 5 * launch);
        }
    }
}

#[test]
fn the_doctor_names_who_holds_the_chips() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libtpu_lockfile");
    let proc = folder.path().join("proc");
    std::fs::create_dir_all(proc.join("4711")).unwrap();
    std::fs::create_dir_all(proc.join("self")).unwrap();
    let maps = proc.join("4711/maps");
    std::fs::write(&maps, "7f00-7f01 r-xp /usr/lib/libc.so\n").unwrap();
    std::fs::write(proc.join("4711/comm"), "python3\n").unwrap();
    assert_eq!(lock(&proc, &file, 4).words, "free");
    // Whom this user may not look at could hold the chips.
    std::fs::create_dir_all(proc.join("12/maps")).unwrap();
    let unknown = lock(&proc, &file, 4);
    assert_eq!(unknown.state, State::Absent);
    assert!(
        unknown.words.contains("unknown") && unknown.remedy.contains("root"),
        "{unknown:?}"
    );
    assert!(lock(&proc.join("none"), &file, 4).words.contains("unknown"));
    std::fs::remove_dir_all(proc.join("12")).unwrap();
    // One that has just ended has no maps.
    std::fs::create_dir_all(proc.join("13")).unwrap();
    std::fs::write(&file, "").unwrap();
    let left = lock(&proc, &file, 4);
    assert_eq!(left.state, State::Good);
    assert!(left.words.contains("left behind"), "{}", left.words);
    std::fs::write(&maps, "7f00-7f01 r-xp /x/libtpu/libtpu.so\n").unwrap();
    let held = lock(&proc, &file, 4);
    assert_eq!(held.state, State::Bad);
    assert!(
        held.words.contains("process 4711 (python3)"),
        "{}",
        held.words
    );
    assert!(!held.remedy.is_empty());
    assert_eq!(lock(&proc, &file, 0).state, State::Absent);
}

#[test]
fn the_doctor_misses_chips_only_on_a_tpu_vm() {
    assert_eq!(chips(4, true).state, State::Good);
    assert_eq!(chips(0, false).state, State::Absent);
    let lost = chips(0, true);
    assert_eq!(lost.state, State::Bad);
    assert!(lost.remedy.contains("create it again"), "{lost:?}");
}

#[test]
fn the_doctor_misses_the_metadata_only_where_a_run_needs_it() {
    let nobody = Metadata::at("127.0.0.1:9", SOON, PAUSE);
    assert_eq!(metadata(&nobody, false).0.state, State::Absent);
    let (found, _) = metadata(&nobody, true);
    assert_eq!(found.state, State::Bad);
    assert!(found.words.contains("cannot be asked"), "{found:?}");
    assert!(found.remedy.contains("--coordinator"), "{found:?}");
    let elsewhere = Metadata::at(&server(&[]), SOON, PAUSE);
    assert_eq!(metadata(&elsewhere, true).0.state, State::Absent);
}

#[test]
fn the_doctor_knows_which_runtime_is_for_which_chip() {
    for (slice, version, state) in [
        ("v3-32", "tpu-ubuntu2204-base", State::Good),
        ("v3-32", "v2-alpha-tpuv5-lite", State::Bad),
        ("v5litepod-16", "v2-alpha-tpuv5-lite", State::Good),
        ("v5litepod-16", "tpu-ubuntu2204-base", State::Bad),
        ("v5p-8", "v2-alpha-tpuv5", State::Good),
        ("v5p-8", "v2-alpha-tpuv5-lite", State::Bad),
        ("v6e-4", "v2-alpha-tpuv6e", State::Good),
        ("v9-4", "x", State::Absent),
    ] {
        let worker = Worker {
            accelerator: Some(slice.into()),
            variables: [("RUNTIME_VERSION".to_string(), version.to_string())].into(),
            ..Worker::default()
        };
        let found = runtime(&worker);
        assert_eq!(found.state, state, "{slice} {version}: {}", found.words);
        assert_eq!(found.remedy.is_empty(), state != State::Bad);
    }
}

#[test]
fn the_doctor_names_workers_that_do_not_answer() {
    let (server, _) = service();
    let here = format!("127.0.0.1:{}", server.port());
    let variables = |hosts: String| {
        move |name: &str| match name {
            "TPU_WORKER_ID" => Some("0".to_string()),
            "TPU_WORKER_HOSTNAMES" => Some(hosts.clone()),
            _ => None,
        }
    };
    let look = |hosts: String| {
        let identity = Identity::find(Wanted::default(), &variables(hosts), None).unwrap();
        others(&identity, Duration::from_secs(10))
    };
    // One listens, one refuses: both are there.
    assert_eq!(look(format!("a,{here},127.0.0.1:9")).state, State::Good);
    let found = look(format!("a,{here},no-such-host.invalid"));
    assert_eq!(found.state, State::Bad);
    assert!(
        found.words.contains("2 (no-such-host.invalid)"),
        "{}",
        found.words
    );
    assert!(found.remedy.contains("firewall"), "{}", found.remedy);
}

#[test]
fn the_doctor_through_the_program() {
    use Answer::Text;
    let address = server(&[
        ("agent-worker-number", Text("0")),
        ("worker-network-endpoints", Text("127.0.0.1")),
        ("accelerator-type", Text("v5litepod-4")),
        ("tpu-env", Text("RUNTIME_VERSION: 'tpu-ubuntu2204-base'\n")),
    ]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_simclr"))
        .args(["doctor", "--json"])
        .env("GCE_METADATA_IP", &address)
        // A proxy of the environment is not asked for it.
        .env("http_proxy", "http://127.0.0.1:9")
        .env("no_proxy", "")
        .env("SIMCLR_PLUGIN_TPU", "/nonexistent/libtpu.so")
        .env_remove("TPU_WORKER_ID")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let state = |what: &str| {
        let all = found.as_array().unwrap();
        let one = all.iter().find(|finding| finding["what"] == what).unwrap();
        (
            one["state"].clone(),
            one["words"].to_string() + &one["remedy"].to_string(),
        )
    };
    assert_eq!(state("plugin").0, "bad");
    assert!(state("plugin").1.contains("/nonexistent/libtpu.so"));
    assert_eq!(state("metadata").0, "good");
    assert!(state("metadata").1.contains("worker 0 of 1, v5litepod-4"));
    assert_eq!(state("runtime").0, "bad");
    assert!(state("runtime").1.contains("tpuv5-lite"));
    assert_eq!(state("workers").0, "good");
    if simclr::pjrt::tpu_chips() == 0 {
        assert_eq!(state("chips").0, "bad");
    }
}

/// Whatever is wrong, it is said what to do.
#[test]
fn the_doctor_has_a_remedy_for_all_it_finds() {
    use Answer::Text;
    let address = server(&[("agent-worker-number", Text("3"))]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_simclr"))
        .args(["doctor", "--json", "data_dir=gs://", "model_dir=gs://"])
        .env("GCE_METADATA_IP", &address)
        .env("SIMCLR_PLUGIN_TPU", "/nonexistent/libtpu.so")
        .env_remove("TPU_WORKER_ID")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let bad = |what: &str| {
        let is = |one: &&serde_json::Value| one["what"] == what && one["state"] == "bad";
        found.iter().find(is).unwrap_or_else(|| panic!("{found:?}"))
    };
    for (what, remedy) in [
        ("plugin", "SIMCLR_PLUGIN_TPU"),
        ("workers", "--coordinator"),
        ("account", "service account"),
        ("data_dir", "gs://BUCKET/NAME"),
        ("model_dir", "gs://BUCKET/NAME"),
    ] {
        let said = bad(what)["remedy"].as_str().unwrap();
        assert!(said.contains(remedy), "{what}: {said}");
    }
}

#[test]
fn processes_that_do_not_show_are_an_error_and_so_is_a_place_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let pretrain = |flags: &[&str], keys: &[&str], variables: &[(&str, &str)]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_simclr"))
            .args(["pretrain", "dataset=shapes32"])
            .arg(format!("model_dir={}", folder.path().join("run").display()))
            .args(flags)
            .args(keys)
            .env("SIMCLR_PLUGIN_TPU", "/nonexistent/libtpu.so")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), words)
    };
    let cpu = ["runtime.platform=cpu", "runtime.devices=1"];
    let address = free_address();
    let two = ["--process", "0", "--processes", "2"];
    let ended = thread::scope(|scope| {
        let start = |process| {
            let flags = ["--process", process, "--processes", "2"];
            let flags = [&flags[..], &["--coordinator", &address]].concat();
            pretrain(&flags, &cpu, &[])
        };
        ["0", "1"]
            .map(|process| scope.spawn(move || start(process)))
            .map(|thread| thread.join().unwrap())
    });
    for (code, words) in ended {
        assert_eq!(code, Some(2), "{words}");
        assert!(
            words.contains("2 process(es), and the cpu plugin shows devices of 1"),
            "{words}"
        );
    }
    let (code, words) = pretrain(&two, &cpu, &[]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("HOST:PORT"), "{words}");
    let (code, words) = pretrain(&["--process", "2", "--processes", "2"], &cpu, &[]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("a process below the number"), "{words}");
    // One host of a slice of two, taken alone, waits for nobody.
    let worker = [
        ("TPU_WORKER_ID", "1"),
        ("TPU_WORKER_HOSTNAMES", "10.0.0.1,10.0.0.2"),
    ];
    let tpu = ["runtime.platform=tpu"];
    let (code, words) = pretrain(&["--processes", "1"], &tpu, &worker);
    assert_eq!(code, Some(3), "{words}");
    assert!(words.contains("/nonexistent/"), "{words}");
    assert!(!folder.path().join("run").exists());
}

/// A process of three through the program, on an address that is free; the CPU plugin would refuse several processes, but not before all
/// are there.
struct OneOfThree(std::process::Child);

impl OneOfThree {
    fn start(process: usize, address: &str, keys: &[&str]) -> Self {
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_simclr"))
            .args(["pretrain", "dataset=shapes32", "--quiet"])
            .args(["runtime.platform=cpu", "runtime.devices=1"])
            .args(["--process", &process.to_string(), "--processes", "3"])
            .args(["--coordinator", address])
            .args(keys)
            .current_dir(std::env::temp_dir())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        OneOfThree(child)
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-s", name, &id])
            .status();
        assert!(status.unwrap().success());
    }

    /// Its exit code and last words.
    fn end(mut self) -> (Option<i32>, String) {
        let mut words = String::new();
        let mut pipe = self.0.stderr.take().unwrap();
        pipe.read_to_string(&mut words).unwrap();
        (self.0.wait().unwrap().code(), words)
    }
}

impl Drop for OneOfThree {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An address on which nobody listens yet.
fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// Waits until a process is at a point where it waits for the others.
fn at(store: &Store, point: &str, process: usize) {
    let key = format!("here/{point}/{process}");
    let there = store.get(key.as_bytes(), SOON).unwrap();
    assert!(there.is_some(), "process {process} did not come");
}

#[test]
fn a_process_that_is_killed_ends_the_others_which_are_to_be_started_again() {
    let (first, second) = (free_address(), free_address());
    let pair = |address: &str| [0, 1].map(|process| OneOfThree::start(process, address, &[]));
    let ([zero, mut killed], [mut killed_zero, one]) = (pair(&first), pair(&second));
    for (address, killed) in [(&first, &mut killed), (&second, &mut killed_zero)] {
        let store = Store::connect(address, SOON).unwrap();
        at(&store, "start", 0);
        at(&store, "start", 1);
        // Without a chance to say anything.
        killed.0.kill().unwrap();
    }
    for (left, gone) in [(zero, 1), (one, 0)] {
        let (code, words) = left.end();
        assert_eq!(code, Some(75), "{words}");
        let sentence = format!("process {gone} is gone without a word");
        assert!(
            words.contains(&sentence) && words.contains("from the last checkpoint"),
            "{words}"
        );
    }
    for killed in [killed, killed_zero] {
        assert_eq!(killed.end().0, None);
    }
}

/// Before there are devices nothing would be lost, and whoever waits for them would hear of no wish.
#[test]
fn a_process_that_still_waits_for_others_ends_at_once_with_the_code_of_its_signal() {
    for (signal, code) in [("TERM", 75), ("INT", 130)] {
        let address = free_address();
        let zero = OneOfThree::start(0, &address, &[]);
        at(&Store::connect(&address, SOON).unwrap(), "start", 0);
        zero.signal(signal);
        assert_eq!(zero.end().0, Some(code), "{signal}");
    }
}

/// Process 0 serves the others, so that it may not end before all have heard why: neither where it finds something wrong itself, nor
/// where another one does. One of them stands still meanwhile, until process 1, for which nobody waits, has ended.
#[test]
fn process_0_stays_until_the_others_have_heard_of_a_failure() {
    for (key, codes, words) in [
        // The first that is compared: process 0 need not hear of process 2.
        (
            "dataset=cifar10",
            [2, 2, 1],
            "process 1 has another dataset",
        ),
        (
            "runtime.plugin=/nonexistent.so",
            [1, 3, 1],
            "/nonexistent.so",
        ),
    ] {
        let address = free_address();
        let zero = OneOfThree::start(0, &address, &[]);
        let slow = OneOfThree::start(2, &address, &[]);
        let store = Store::connect(&address, SOON).unwrap();
        at(&store, "start", 2);
        slow.signal("STOP");
        // Now all are there, and go on.
        let one = OneOfThree::start(1, &address, &[key]);
        at(&store, "failed", 0);
        let one = one.end();
        slow.signal("CONT");
        let ended = [zero.end(), one, slow.end()];
        for ((found, said), code) in ended.into_iter().zip(codes) {
            assert_eq!(found, Some(code), "{said}");
            assert!(said.contains(words), "{said}");
        }
    }
}

#[test]
fn processes_with_another_configuration_do_not_begin() {
    let address = free_address();
    let all = [
        OneOfThree::start(0, &address, &[]),
        OneOfThree::start(1, &address, &["temperature=0.7"]),
        OneOfThree::start(2, &address, &[]),
    ];
    for (process, one) in all.into_iter().enumerate() {
        let (code, words) = one.end();
        // Who has what process 0 has is told by those who found out.
        assert_eq!(code, Some(if process == 2 { 1 } else { 2 }), "{words}");
        assert!(
            words.contains("process 1 has another temperature (0.7) than process 0 (0.1)"),
            "{words}"
        );
    }
}
