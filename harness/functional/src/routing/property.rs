// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random policy rules, routes and marks, and changes of them between packets: every packet fares as it
//! does with nft.

use anyhow::{Context as _, Result};

use super::super::setup::{client_address, sized, upstream};
use super::super::GuestTest;
use super::by_family;
use super::fate::Trace;
use super::lab::{beside_nft, each, server_on_second, Datagram, Lab, Redirect, FIRST_PORT};
use super::policy::{answer, send};
use mutexlab_model::random::Random;
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::{NEIGHBOUR, ORIGINAL_PORT, UPSTREAM_PORT};

/// The first case's seed; those after it are for further cases.
const SEED: u64 = 1;
/// Cases of a test.
const CASES: u64 = 3;
/// Further tests, if all may take long.
const PARTS: u64 = 20;
/// Steps of a case.
const STEPS: usize = 80;
/// Flows of each place of the client, which take part in a case.
const FLOWS: u16 = 2;
const TABLES: [&str; 4] = ["100", "101", "102", "main"];
const MARKS: [u32; 3] = [1, 2, 3];
const TOS: [u8; 3] = [0, 8, 0x10];
/// An owner of sockets that rules know.
const OWNER: u32 = 1000;
/// On both sides of the module's hooks and before NAT.
const PRIORITIES: [i32; 7] = [-300, -275, -249, -200, -150, -120, -101];

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let about =
        "under random policy rules, routes and marks every packet goes where it goes with nft";
    let mut tests = by_family("route-random", about, |family| {
        cases(family, SEED, sized(CASES, 1)?)
    });
    for part in 1..=PARTS {
        let more = by_family(&format!("routes-random-{part}"), about, move |family| {
            cases(family, SEED + part * CASES, CASES)
        });
        tests.extend(more.into_iter().map(GuestTest::long));
    }
    tests
}

/// One step of a case.
#[derive(Clone, Debug)]
enum Step {
    /// An `ip` command.
    Ip(String),
    /// A script of nftables.
    Nft(String),
    /// A datagram of a client's.
    Send(Datagram),
    /// An answer to the last one of its flow.
    Answer(Datagram),
}

fn cases(family: Family, seed: u64, count: u64) -> Result<()> {
    each(
        seed..seed + count,
        |seed| format!("seed {seed}"),
        |&seed| {
            let steps = Case::new(family, seed).steps();
            beside_nft(
                family,
                &[Redirect::usual(family)],
                |lab, trace| follow(lab, trace, &steps),
                |_| Ok(()),
            )
        },
    )
}

fn follow(lab: &mut Lab, trace: &mut Trace, steps: &[Step]) -> Result<()> {
    // What tells that packets have passed is led by none of the rules.
    let fence = NEIGHBOUR.address(lab.family());
    lab.ip(&format!(
        "rule add pref 1 from {fence} lookup main\nrule add pref 2 to {fence} lookup main\n"
    ))?;
    for (at, step) in steps.iter().enumerate() {
        let done = match step {
            Step::Ip(command) => {
                trace.did(command);
                lab.ip(&format!("{command}\n"))
            }
            Step::Nft(script) => {
                trace.did(script.split_whitespace().collect::<Vec<_>>().join(" "));
                lab.nft(script)
            }
            Step::Send(datagram) => send(lab, trace, datagram, 1),
            Step::Answer(datagram) => answer(lab, trace, datagram),
        };
        done.with_context(|| format!("step {at}: {step:?}"))?;
    }
    Ok(())
}

/// What a case has made so far, so that it makes nothing twice and takes away only what is there.
struct Case {
    family: Family,
    random: Random,
    rules: Vec<String>,
    routes: Vec<String>,
    markings: Vec<usize>,
    made: usize,
    steps: Vec<Step>,
}

impl Case {
    fn new(family: Family, seed: u64) -> Self {
        Self {
            family,
            random: Random::new(seed),
            rules: Vec::new(),
            routes: Vec::new(),
            markings: Vec::new(),
            made: 0,
            steps: Vec::new(),
        }
    }

    fn steps(mut self) -> Vec<Step> {
        // So that rules lead somewhere from the beginning.
        let gateway = server_on_second(self.family);
        for route in [
            format!("default via {gateway} dev second onlink table 100"),
            "blackhole default table 101".to_owned(),
        ] {
            self.steps.push(Step::Ip(format!("route add {route}")));
            self.routes.push(route);
        }
        for _ in 0..STEPS {
            match self.random.below(20) {
                0 | 1 => self.add_rule(),
                2 => self.delete_rule(),
                3 => self.add_route(),
                4 => self.delete_route(),
                5 | 6 => self.add_marking(),
                7 => self.delete_marking(),
                8..=10 => {
                    let datagram = self.datagram();
                    self.steps.push(Step::Answer(datagram));
                }
                _ => {
                    let datagram = self.datagram();
                    self.steps.push(Step::Send(datagram));
                }
            }
        }
        self.steps
    }

    fn datagram(&mut self) -> Datagram {
        let random = &mut self.random;
        let way = random.pick(&[Way::Forward, Way::Local]);
        // A port of its own for each place of the client, since rules know it.
        let flow = random.below(FLOWS.into()) as u16 + if way == Way::Local { FLOWS } else { 0 };
        Datagram {
            tos: random.pick(&TOS),
            mark: match way {
                Way::Local if random.one_in(3) => random.pick(&MARKS),
                _ => 0,
            },
            owner: match way {
                Way::Local if random.one_in(3) => OWNER,
                _ => 0,
            },
            ..Datagram::of(way, flow)
        }
    }

    fn add_rule(&mut self) {
        let random = &mut self.random;
        let family = self.family;
        let mut selectors = Vec::new();
        for _ in 0..if random.one_in(4) { 2 } else { 1 } {
            selectors.push(match random.below(9) {
                0 => format!("fwmark {}", MARKS[0]),
                1 => format!("fwmark {}", random.pick(&MARKS)),
                2 => format!("fwmark {}/0x2", random.pick(&[0, 2])),
                3 => format!("tos {:#x}", random.pick(&TOS[1..])),
                4 => format!(
                    "iif {}",
                    random.pick(&["clients", "servers", "second", "lo"])
                ),
                5 => format!(
                    "ipproto 17 dport {}",
                    random.pick(&[UPSTREAM_PORT, ORIGINAL_PORT])
                ),
                6 => format!(
                    "ipproto 17 sport {}",
                    FIRST_PORT + random.below(2 * usize::from(FLOWS)) as u16
                ),
                7 => {
                    let way = random.pick(&[Way::Forward, Way::Local]);
                    format!("from {}", client_address(way, family).ip())
                }
                _ => format!("uidrange {OWNER}-{OWNER}"),
            });
        }
        selectors.sort();
        // One of each: a later one of the same sort would only take the first one's place.
        selectors.dedup_by_key(|selector| selector.split(' ').next().map(str::to_owned));
        let action = match random.below(8) {
            0 => "blackhole".to_owned(),
            1 => "prohibit".to_owned(),
            2..=4 => format!("lookup {}", TABLES[0]),
            _ => format!("lookup {}", random.pick(&TABLES[..3])),
        };
        self.made += 1;
        let rule = format!("pref {} {} {action}", 10 + self.made, selectors.join(" "));
        self.steps.push(Step::Ip(format!("rule add {rule}")));
        self.rules.push(rule);
    }

    fn delete_rule(&mut self) {
        if !self.rules.is_empty() {
            let rule = self.rules.swap_remove(self.random.below(self.rules.len()));
            self.steps.push(Step::Ip(format!("rule del {rule}")));
        }
    }

    fn add_route(&mut self) {
        let random = &mut self.random;
        let family = self.family;
        let table = random.pick(&TABLES);
        let host = upstream(family).ip().to_string();
        // Whatever the main table says of all others, the router's sockets would say before any hook.
        let to = if table == "main" || random.one_in(2) {
            host
        } else {
            "default".to_owned()
        };
        let tos = match family {
            Family::V4 if random.one_in(3) => format!(" tos {:#x}", random.pick(&TOS[1..])),
            _ => String::new(),
        };
        let gateway = server_on_second(family);
        // On the link, whatever the rules so far say of the gateway.
        let route = match random.below(8) {
            0 => format!("blackhole {to}{tos} table {table}"),
            1 => format!("prohibit {to}{tos} table {table}"),
            2 => format!("unreachable {to}{tos} table {table}"),
            3 => format!("throw {to}{tos} table {table}"),
            4 => format!("{to}{tos} dev servers table {table}"),
            _ => format!("{to}{tos} via {gateway} dev second onlink table {table}"),
        };
        // The same destination in the same table is there once, whatever it says.
        let place = |route: &str| {
            let kinds = ["blackhole", "prohibit", "unreachable", "throw"];
            let words: Vec<&str> = route
                .split(' ')
                .filter(|word| !kinds.contains(word))
                .collect();
            let tos = words.iter().position(|&word| word == "tos");
            let tos = tos.and_then(|at| words.get(at + 1)).copied();
            let (to, table) = (words.first().copied(), words.last().copied());
            format!("{to:?} {tos:?} {table:?}")
        };
        if self
            .routes
            .iter()
            .all(|other| place(other) != place(&route))
        {
            self.steps.push(Step::Ip(format!("route add {route}")));
            self.routes.push(route);
        }
    }

    fn delete_route(&mut self) {
        if !self.routes.is_empty() {
            let route = self
                .routes
                .swap_remove(self.random.below(self.routes.len()));
            self.steps.push(Step::Ip(format!("route del {route}")));
        }
    }

    fn add_marking(&mut self) {
        let random = &mut self.random;
        let priority = random.pick(&PRIORITIES);
        // The same mark more often than not, so that rules and marks meet.
        let mark = if random.one_in(2) {
            MARKS[0]
        } else {
            random.pick(&MARKS)
        };
        let port = FIRST_PORT + random.below(2 * usize::from(FLOWS)) as u16;
        // What answers a flow has its port as destination, before and after translation.
        let direction = random.pick(&["sport", "sport", "dport"]);
        self.made += 1;
        let name = self.made;
        self.steps.push(Step::Nft(format!(
            "table inet marking{name} {{
    chain incoming {{
        type filter hook prerouting priority {priority};
        udp {direction} {port} meta mark set {mark}
    }}
    chain own {{
        type route hook output priority {priority};
        udp {direction} {port} meta mark set {mark}
    }}
}}
"
        )));
        self.markings.push(name);
    }

    fn delete_marking(&mut self) {
        if !self.markings.is_empty() {
            let name = self
                .markings
                .swap_remove(self.random.below(self.markings.len()));
            self.steps
                .push(Step::Nft(format!("delete table inet marking{name}\n")));
        }
    }
}
