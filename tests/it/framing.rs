//! Strict in, canonical out: what is refused, with exact octets and the proof that the origin saw
//! nothing of it, and what is forwarded, as the origin gets it.
//!
//! Every vector comes whole, octet by octet, split in two at every place, and behind a good request.

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::vectors;
use crate::support::vectors::AtOrigin;
use crate::support::vectors::Delivery;
use crate::support::vectors::Vector;

fn refused() -> Vec<Vector> {
    vectors::read(include_str!("vectors/refused.txt"))
}

fn forwarded() -> Vec<Vector> {
    vectors::read(include_str!("vectors/forwarded.txt"))
}

fn odd() -> Vec<Vector> {
    vectors::read(include_str!("vectors/odd.txt"))
}

/// One that reads on for long behind a refusal: what is split may come late on a busy machine.
fn patient(origin: &Origin) -> Proxy {
    Proxy::with(origin, |c| {
        c.listener("linger_timeout", "60s");
    })
}

/// Plays all of these and fails with the list of complaints.
fn judge(vectors: &[(&Vector, Delivery)], proxy: &Proxy) {
    let address = proxy.address();
    let complaints = vectors::all(vectors, |(vector, delivery)| {
        vector.play(address, *delivery)
    });
    none(complaints, vectors.len());
}

#[track_caller]
fn none(complaints: Vec<String>, of: usize) {
    let count = complaints.len();
    // One complaint for each vector; that it fails at every split need not be read at every split.
    let mut shown: Vec<String> = complaints;
    shown.sort();
    shown.dedup_by_key(|complaint| complaint.split(" (").next().unwrap_or_default().to_owned());
    assert!(count == 0, "{count} of {of}:\n{}", shown.join("\n"));
}

fn delivered(vectors: &[Vector], delivery: Delivery) -> Vec<(&Vector, Delivery)> {
    vectors.iter().map(|vector| (vector, delivery)).collect()
}

fn all_splits(vectors: &[Vector]) -> Vec<(&Vector, Delivery)> {
    vectors
        .iter()
        .flat_map(|v| v.splits().into_iter().map(move |split| (v, split)))
        .collect()
}

#[test]
fn a_request_that_breaks_the_framing_is_refused_and_the_origin_sees_nothing() {
    let origin = Origin::ok();
    let proxy = patient(&origin);
    let mut vectors = refused();
    assert!(vectors.len() >= 150);
    vectors.retain(|vector| matches!(vector.origin, AtOrigin::Nothing));
    for delivery in [Delivery::Whole, Delivery::OctetByOctet] {
        judge(&delivered(&vectors, delivery), &proxy);
    }
    vectors::saw_nothing(&origin).unwrap();
}

#[test]
fn a_body_that_breaks_the_framing_is_refused_and_never_whole_at_the_origin() {
    let origin = Origin::ok();
    let proxy = patient(&origin);
    let mut vectors = refused();
    vectors.retain(|vector| matches!(vector.origin, AtOrigin::Begun));
    for delivery in [Delivery::Whole, Delivery::OctetByOctet] {
        judge(&delivered(&vectors, delivery), &proxy);
    }
    judge(&all_splits(&vectors), &proxy);
    assert_eq!(origin.request_count(), 0, "{:#?}", origin.requests());
}

#[test]
fn where_a_bad_request_is_split_makes_no_difference() {
    let origin = Origin::ok();
    let proxy = patient(&origin);
    let mut vectors = refused();
    vectors.retain(|vector| matches!(vector.origin, AtOrigin::Nothing));
    judge(&all_splits(&vectors), &proxy);
    vectors::saw_nothing(&origin).unwrap();
}

#[test]
fn a_bad_request_behind_a_good_one_is_refused_after_the_good_one_is_answered() {
    let origin = Origin::ok();
    let proxy = patient(&origin);
    let vectors = refused();
    judge(&delivered(&vectors, Delivery::BehindAnother), &proxy);
    let requests = origin.requests();
    assert_eq!(requests.len(), vectors.len());
    let all_good = requests
        .iter()
        .all(|seen| seen.message.head.start == "GET /another HTTP/1.1");
    assert!(all_good, "the origin saw another request than the good one");
}

/// Plays each of these and looks at what became of it; how it is delivered makes no difference.
fn are_written_afresh(vectors: &[Vector]) {
    let origin = Origin::ok();
    let proxy = patient(&origin);
    let mut complaints = Vec::new();
    for vector in vectors {
        for delivery in [Delivery::Whole, Delivery::OctetByOctet] {
            origin.forget();
            complaints.extend(vector.play(proxy.address(), delivery).err());
            let requests = origin.requests();
            if requests.len() != 1 {
                complaints.push(format!("{}: {} requests", vector.name, requests.len()));
            }
            for seen in &requests {
                complaints.extend(vector.is_canonical(&seen.message).err());
            }
        }
    }
    none(complaints, vectors.len());
}

#[test]
fn what_is_forwarded_is_written_afresh_and_can_be_read_one_way() {
    are_written_afresh(&forwarded());
}

#[test]
fn what_is_odd_and_legal_is_forwarded_in_the_one_way_to_read_it() {
    let vectors = odd();
    assert!(vectors.len() >= 200);
    are_written_afresh(&vectors);
}

#[test]
fn where_a_good_request_is_split_makes_no_difference() {
    let vectors = forwarded();
    let complaints = vectors::all(&[0, 1], |half| {
        let origin = Origin::ok();
        let proxy = patient(&origin);
        for vector in vectors.iter().skip(*half).step_by(2) {
            origin.forget();
            let splits: Vec<_> = vector
                .splits()
                .into_iter()
                .map(|split| (vector, split))
                .collect();
            judge(&splits, &proxy);
            let requests = origin.requests();
            assert_eq!(requests.len(), splits.len(), "{}", vector.name);
            for seen in &requests {
                vector.is_canonical(&seen.message)?;
            }
        }
        Ok(())
    });
    none(complaints, vectors.len());
}

#[test]
fn each_refusal_is_counted_by_its_reason() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "version_unsupported"),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
            "method_refused",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "not_implemented",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n",
            "expectation_failed",
        ),
    ];
    for (octets, reason) in cases {
        let mut client = proxy.client();
        client.send(octets);
        let answer = client.response();
        assert!(answer.status() >= 400, "{reason}: {}", answer.head.start);
        client.sees_a_clean_end();
        proxy.errors_becomes(reason, 1.0);
    }
    proxy.client_closed_becomes("framing_error", 1.0);
    proxy.client_closed_becomes("error_answer", 4.0);
    vectors::saw_nothing(&origin).unwrap();
}
