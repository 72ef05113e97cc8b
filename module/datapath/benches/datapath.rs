// SPDX-License-Identifier: GPL-2.0

//! Times the steps that an established packet takes, one by one. They tell which step a change
//! made slower; what a packet costs in the kernel, `mutexlab bench` counts.

use std::arch::x86_64::{_mm_lfence, _mm_prefetch, _MM_HINT_T0};
use std::hint::black_box;
use std::sync::Mutex;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion};
use mutex_abi::histogram;
use mutex_abi::monitor::{LATENCY_PRECISION, LATENCY_RANGE};
use mutex_abi::proxy::Protocol;
use mutex_datapath::cache_set::{Set, Tag};
use mutex_datapath::checksum::Sum;
use mutex_datapath::flow::{ChecksumFixup, Direction, Flow, Owner};
use mutex_datapath::hash::Seed;
use mutex_datapath::host::{Boxes, Heads, Sections};
use mutex_datapath::link::{Owned, Rcu};
use mutex_datapath::octave;
use mutex_datapath::packet::Header;
use mutex_datapath::table::{FlowNode, Table};
use mutex_datapath::translate::{translate, Offload};
use mutex_datapath::tuple::{Address, Ports, Tuple, V4, V6};

fn address<A: Address>(number: u32) -> A {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    A::from_bytes(bytes)
}

fn tuple<A: Address>(number: u32) -> Tuple<A> {
    let ports = Ports::new(number as u16, 80_u16.to_be());
    let client = address(0x0a00_0000 | number >> 16);
    Tuple::new(Protocol::Udp, client, address(1), ports)
}

fn udp_v4() -> [u8; 28] {
    let mut packet = [0; 28];
    packet[0] = 0x45;
    packet[9] = 17;
    packet
}

fn udp_v6() -> [u8; 48] {
    let mut packet = [0; 48];
    packet[0] = 0x60;
    packet[6] = 17;
    packet
}

fn hash(criterion: &mut Criterion) {
    let (seed_four, seed_six) = (Seed::from(1), Seed::from(1));
    let mut group = criterion.benchmark_group("hash");
    let (four, six) = (tuple::<V4>(7), tuple::<V6>(7));
    group.bench_function("v4", |bench| {
        bench.iter(|| black_box(&four).hash(&seed_four))
    });
    group.bench_function("v6", |bench| bench.iter(|| black_box(&six).hash(&seed_six)));
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let (four, six) = (udp_v4(), udp_v6());
    group.bench_function("parse_fast-v4", |bench| {
        bench.iter(|| V4::parse_fast(black_box(&four)));
    });
    group.bench_function("parse-v4", |bench| {
        bench.iter(|| V4::parse(black_box(&four)));
    });
    group.bench_function("parse_fast-v6", |bench| {
        bench.iter(|| V6::parse_fast(black_box(&six)));
    });
    group.bench_function("parse-v6", |bench| {
        bench.iter(|| V6::parse(black_box(&six)));
    });
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    let (four, six) = (tuple::<V4>(7), tuple::<V6>(7));
    let change = ChecksumFixup::between(&four, &four.to(address(2), 81_u16.to_be()));
    group.bench_function("apply", |bench| {
        bench.iter(|| black_box(change).transport.apply(black_box(0x1234)));
    });
    // What making a flow takes.
    let (to_four, to_six) = (four.to(address(2), 1), six.to(address(2), 1));
    group.bench_function("change-v4", |bench| {
        bench.iter(|| ChecksumFixup::between(black_box(&four), &to_four));
    });
    group.bench_function("change-v6", |bench| {
        bench.iter(|| ChecksumFixup::between(black_box(&six), &to_six));
    });
    // The packet in an error of ICMP.
    let quoted = [7; 128];
    group.bench_function("sum-128", |bench| {
        bench.iter(|| Sum::of(black_box(&quoted)).fold());
    });
}

fn rewrite(criterion: &mut Criterion) {
    let mut packet = udp_v4();
    let from = tuple::<V4>(7);
    let to = from.to(address(2), 81_u16.to_be());
    let change = ChecksumFixup::between(&from, &to);
    criterion.bench_function("translate/v4-udp", |bench| {
        bench.iter(|| {
            let (network, transport) = black_box(&mut packet).split_at_mut(20);
            translate(network, transport, &to, change, Offload::None)
        });
    });
}

type FlowTable<A> = Table<A, (), Heads<Tuple<A>, Flow<()>>, Mutex<()>>;

/// A table of that many flows: those of [`tuple`].
fn table<A: Address>(flows: u32) -> FlowTable<A> {
    let buckets = flows.next_power_of_two() as usize;
    let table = Table::new(Heads::new(buckets), Mutex::new(()), 1.into()).expect("a power of two");
    let owner = Owner {
        context: 0,
        upstream: Owner::NOBODY.upstream,
    };
    for number in 0..flows {
        let original = tuple::<A>(number);
        let upstream = original.to(address(2), 81_u16.to_be());
        let (keys, flow) = Flow::new(&original, &upstream, owner, 0);
        let flow: Owned<'_, _, _, _> = Owned::new(&Boxes, keys, flow).expect("memory");
        Sections::read(|guard| table.edit(|edit| edit.insert(guard, flow).state()));
    }
    table
}

fn find<A: Address>(criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group(name);
    for flows in [1_u32, 1000, 100_000] {
        let table = table::<A>(flows);
        let mut number = 0_u32;
        Sections::read(|guard| {
            group.bench_function(BenchmarkId::from_parameter(flows), |bench| {
                bench.iter(|| {
                    // Every flow in turn, in an order that the processor does not guess.
                    number = number.wrapping_add(0x9e37_79b1) % flows;
                    let found = table.lookup(guard, &tuple::<A>(number));
                    found.map(|(flow, direction): (&FlowNode<A, ()>, _)| (flow.state(), direction))
                });
            });
        });
    }
}

fn tables(criterion: &mut Criterion) {
    find::<V4>(criterion, "find-v4");
    find::<V6>(criterion, "find-v6");
}

/// What a CPU's cache takes for a flow that it knows, the last one used or another.
fn cache(criterion: &mut Criterion) {
    const FLOWS: u32 = 4;
    let table = table::<V4>(FLOWS);
    let set = Set::new();
    let mut group = criterion.benchmark_group("cache");
    Sections::read(|guard| {
        let hash = |tuple: &Tuple<V4>| table.hash(tuple);
        for number in 0..FLOWS {
            let original = tuple::<V4>(number);
            let hash = hash(&original);
            let tag = Tag::new(guard, hash as u32);
            if let Some(found) = table.lookup_entry(guard, hash, &original) {
                set.insert(tag, &found);
            }
        }
        for (name, flows) in [("last", 1), ("any", FLOWS)] {
            let mut number = 0_u32;
            group.bench_function(name, |bench| {
                bench.iter(|| {
                    number = number.wrapping_add(1) % flows;
                    let original = tuple::<V4>(number);
                    let tag = Tag::new(guard, hash(&original) as u32);
                    set.lookup(guard, tag, &original)
                        .map(|found| (found.node.state(), found.direction))
                });
            });
        }
    });
}

fn histograms(criterion: &mut Criterion) {
    type Scale = histogram::Scale<LATENCY_PRECISION, LATENCY_RANGE>;
    type Octaves = histogram::Octaves<LATENCY_PRECISION>;
    let mut group = criterion.benchmark_group("record");
    let mut buckets = vec![0_u64; Scale::BUCKETS];
    group.bench_function("scale", |bench| {
        bench.iter(|| buckets[Scale::index(black_box(1234))] += 1);
    });
    let mut places = vec![0_u64; Octaves::COUNT];
    group.bench_function("octaves", |bench| {
        bench.iter(|| places[Octaves::index(black_box(1234))] += 1);
    });
    // What the kernel does; but for a CPU without LZCNT, on which it does not.
    if std::arch::is_x86_feature_detected!("lzcnt") {
        group.bench_function("octaves-assembly", |bench| {
            bench.iter(|| {
                // SAFETY: the CPU has LZCNT.
                places[unsafe { octave::index::<LATENCY_PRECISION>(black_box(1234)) }] += 1;
            });
        });
    }
}

/// Asks for a cache line.
fn prefetch<T>(value: &T) {
    // SAFETY: changes nothing that a program sees.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
}

/// What a packet waits for in a table that no cache holds, alone and as `proxy/batch.rs` asks for the
/// lines of several. Between two packets of the kernel's lie so many instructions that the processor
/// does not look ahead to the next by itself: here a fence stands for them.
fn batches(criterion: &mut Criterion) {
    const PACKETS: usize = 64;
    let mut group = criterion.benchmark_group("batch-of-64");
    for flows in [1000_u32, 100_000, 1_000_000] {
        let table = table::<V4>(flows);
        for size in [1, 8] {
            let mut number = 0_u32;
            let id = BenchmarkId::new(format!("groups-of-{size}"), flows);
            Sections::read(|guard| {
                group.bench_function(id, |bench| {
                    bench.iter(|| {
                        let mut numbers = [0; PACKETS];
                        for one in &mut numbers {
                            number = number.wrapping_add(0x9e37_79b1) % flows;
                            *one = number;
                        }
                        for group in numbers.chunks(size) {
                            if size > 1 {
                                let mut buckets = [None; 8];
                                for (bucket, &number) in buckets.iter_mut().zip(group) {
                                    let head = table.head(guard, &tuple(number));
                                    prefetch(head);
                                    *bucket = Some(head);
                                }
                                for found in
                                    buckets.iter().flatten().flat_map(|head| head.load(guard))
                                {
                                    prefetch(found.key());
                                    prefetch(
                                        found.node.start(Direction::from_index(found.direction)),
                                    );
                                }
                            }
                            for &number in group {
                                if let Some((flow, direction)) = table.lookup(guard, &tuple(number))
                                {
                                    flow.count(direction, 64, number);
                                }
                                // SAFETY: part of every x86-64.
                                unsafe { _mm_lfence() };
                            }
                        }
                    });
                })
            });
        }
    }
}

criterion_group!(benches, hash, parse, checksum, rewrite, tables, cache, batches, histograms);
criterion_main!(benches);
