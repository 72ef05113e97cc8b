// SPDX-License-Identifier: MIT OR Apache-2.0

//! Times what the generator does for every packet: recording how long it took, and building it. Both
//! are part of what is measured from end to end, and have to be small beside it.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{criterion_group, criterion_main, BatchSize, BenchmarkId, Criterion, Throughput};
use mutexlab_model::histogram::Recorder;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Segment, Transport, FRAME_MAX};
use pnet::packet::tcp::TcpFlags;
use pnet::util::MacAddr;

/// Samples recorded in one go.
const SAMPLES: u64 = 1_000;

/// A sample is to be recorded within 10 ns.
fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(SAMPLES));
    group.bench_function("samples", |bencher| {
        bencher.iter_batched_ref(
            || Recorder::with_capacity(SAMPLES as usize),
            |recorder| (0..SAMPLES).for_each(|value| recorder.record(black_box(value))),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A packet is to be built within 200 ns.
fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    let hop = Hop {
        source: MacAddr(2, 0, 0, 0, 0, 1),
        destination: MacAddr(2, 0, 0, 0, 0, 2),
    };
    let segment = Transport::Tcp(Segment {
        sequence: 1,
        acknowledgement: 2,
        flags: TcpFlags::PSH | TcpFlags::ACK,
    });
    let mut buffer = [0; FRAME_MAX];
    for (family, source, destination) in [
        ("v4", "198.18.0.1:40000", "198.51.100.200:7"),
        ("v6", "[2001:2::1]:40000", "[2001:db8:2::c8]:7"),
    ] {
        let [source, destination] = [source, destination].map(|address| {
            let address: SocketAddr = address.parse().expect("a constant is an address");
            address
        });
        for (protocol, transport) in [("udp", Transport::Udp), ("tcp", segment)] {
            for length in [16, 64, 1_400] {
                let header = Header {
                    source,
                    destination,
                    transport,
                };
                let payload = vec![0xa5; length];
                let name = BenchmarkId::new(format!("{family} {protocol}"), length);
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        let frame = frame::build(
                            black_box(&mut buffer),
                            hop,
                            black_box(&header),
                            black_box(&payload),
                        );
                        black_box(frame.map(<[u8]>::len).unwrap_or_default())
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, record, build);
criterion_main!(benches);
