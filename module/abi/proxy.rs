// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `/dev/mutex_proxy`: an open descriptor is a proxy context.
//!
//! * `open` needs CAP_NET_ADMIN in the caller's network namespace; the context belongs to that
//!   namespace and keeps it alive.
//! * `write` takes one whole [`ConfigHeader`] followed by its [`Rule`]s in a single call and puts
//!   them in the place of the context's former rules, all or nothing.
//! * `read` returns the same bytes from the file position on.
//! * `ioctl` with [`IOC_STATS`] fills a [`Stats`].
//! * `close` of the last reference removes the rules and the flows that they made.

use super::bytes::{Reader, Writer};

/// Where the descriptor comes from.
pub const DEVICE: &str = "mutex_proxy";
/// First four bytes of a configuration: "MTXP".
pub const MAGIC: u32 = u32::from_le_bytes(*b"MTXP");
/// Version of the records in this file.
pub const VERSION: u16 = 1;
/// The most rules that one context takes.
pub const MAX_RULES: usize = 64;
/// `_IOR('M', 1, [u8; Stats::SIZE])`.
pub const IOC_STATS: u32 = (2 << 30) | ((Stats::SIZE as u32) << 16) | ((b'M' as u32) << 8) | 1;

/// Why a configuration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Fewer or more bytes than the header announces.
    Length,
    /// Not a configuration.
    Magic,
    /// A version that this side does not speak.
    Version,
    /// More than [`MAX_RULES`].
    TooManyRules,
    /// A field of a rule has no meaning.
    Rule,
}

/// Precedes the rules in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigHeader {
    /// How many rules follow.
    pub rules: u16,
}

impl ConfigHeader {
    /// Size in bytes.
    pub const SIZE: usize = 8;

    /// Checks magic, version and the number of rules.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32().ok_or(Invalid::Length)?;
        let version = reader.u16().ok_or(Invalid::Length)?;
        let rules = reader.u16().ok_or(Invalid::Length)?;
        if magic != MAGIC {
            return Err(Invalid::Magic);
        }
        if version != VERSION {
            return Err(Invalid::Version);
        }
        if usize::from(rules) > MAX_RULES {
            return Err(Invalid::TooManyRules);
        }
        Ok(Self { rules })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&MAGIC.to_le_bytes());
        let _ = writer.put(&VERSION.to_le_bytes());
        let _ = writer.put(&self.rules.to_le_bytes());
        out
    }

    /// Size in bytes of a configuration of `rules` rules.
    pub const fn config_size(rules: usize) -> usize {
        Self::SIZE + rules * Rule::SIZE
    }
}

/// The transport protocols that can be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// Transmission Control Protocol, RFC 9293.
    Tcp = 6,
    /// User Datagram Protocol, RFC 768.
    Udp = 17,
}

impl Protocol {
    /// From the number in the IP header.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// RFC 791.
    V4 = 4,
    /// RFC 8200.
    V6 = 6,
}

impl Family {
    /// From the IP version number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            4 => Some(Self::V4),
            6 => Some(Self::V6),
            _ => None,
        }
    }

    /// Length of an address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// New connections of packets passing through (PRE_ROUTING).
pub const HOOK_PRE_ROUTING: u8 = 1 << 0;
/// New connections of the machine's own (LOCAL_OUT).
pub const HOOK_LOCAL_OUT: u8 = 1 << 1;

/// Which new connections go to which upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// IP version of both addresses.
    pub family: Family,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Set of [`HOOK_PRE_ROUTING`] and [`HOOK_LOCAL_OUT`]; not empty.
    pub hooks: u8,
    /// Length of the prefix of `destination` that is compared, in bits.
    pub prefix: u8,
    /// First destination port.
    pub port_first: u16,
    /// Last destination port, inclusive.
    pub port_last: u16,
    /// Port at the upstream; 0 keeps the destination's.
    pub upstream_port: u16,
    /// Destination address or network.
    pub destination: [u8; 16],
    /// Where the connection goes instead.
    pub upstream: [u8; 16],
}

impl Rule {
    /// Size in bytes: ten of scalars, two addresses, and six reserved bytes that must be zero.
    pub const SIZE: usize = 48;

    /// Reads and checks one rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let rule = Self::read(&mut reader).ok_or(Invalid::Length)?;
        rule.filter(Self::is_valid).ok_or(Invalid::Rule)
    }

    // The outer `None` is a short buffer, the inner one a field without a meaning.
    fn read(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let family = Family::from_number(reader.u8()?);
        let protocol = Protocol::from_number(reader.u8()?);
        let hooks = reader.u8()?;
        let prefix = reader.u8()?;
        let port_first = reader.u16()?;
        let port_last = reader.u16()?;
        let upstream_port = reader.u16()?;
        let reserved: [u8; 6] = reader.array()?;
        let destination = reader.array()?;
        let upstream = reader.array()?;
        let (Some(family), Some(protocol), [0, 0, 0, 0, 0, 0]) = (family, protocol, reserved)
        else {
            return Some(None);
        };
        Some(Some(Self {
            family,
            protocol,
            hooks,
            prefix,
            port_first,
            port_last,
            upstream_port,
            destination,
            upstream,
        }))
    }

    fn is_valid(&self) -> bool {
        let tail_is_zero = |address: &[u8; 16]| {
            self.family == Family::V6 || address.iter().skip(4).all(|&byte| byte == 0)
        };
        self.hooks != 0
            && self.hooks & !(HOOK_PRE_ROUTING | HOOK_LOCAL_OUT) == 0
            && self.prefix <= self.family.bits()
            && self.port_first <= self.port_last
            && tail_is_zero(&self.destination)
            && tail_is_zero(&self.upstream)
            && self.upstream != [0; 16]
    }

    /// The rule as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&[
            self.family as u8,
            self.protocol as u8,
            self.hooks,
            self.prefix,
        ]);
        let _ = writer.put(&self.port_first.to_le_bytes());
        let _ = writer.put(&self.port_last.to_le_bytes());
        let _ = writer.put(&self.upstream_port.to_le_bytes());
        let _ = writer.put(&[0; 6]);
        let _ = writer.put(&self.destination);
        let _ = writer.put(&self.upstream);
        out
    }
}

/// Decodes the rules of a whole configuration one by one, after checking its length.
pub fn decode_config(
    bytes: &[u8],
) -> Result<impl Iterator<Item = Result<Rule, Invalid>> + '_, Invalid> {
    let header = ConfigHeader::decode(bytes)?;
    if bytes.len() != ConfigHeader::config_size(usize::from(header.rules)) {
        return Err(Invalid::Length);
    }
    let rules = bytes.get(ConfigHeader::SIZE..).unwrap_or_default();
    Ok(rules.chunks_exact(Rule::SIZE).map(Rule::decode))
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of the network namespace, summed over CPUs, since its first context opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The counters' names, in the order of the record.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
            /// Size in bytes.
            pub const SIZE: usize = 8 * Self::NAMES.len();

            /// Reads a record; `None` if it is too short.
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                let mut reader = Reader::new(bytes);
                Some(Self { $($name: reader.u64()?,)* })
            }

            /// The record as bytes.
            pub fn encode(&self) -> [u8; Self::SIZE] {
                let mut out = [0; Self::SIZE];
                let mut writer = Writer::new(&mut out);
                $(let _ = writer.put(&self.$name.to_le_bytes());)*
                out
            }

            /// The counters in the order of [`Self::NAMES`].
            pub fn values(&self) -> [u64; Self::SIZE / 8] {
                [$(self.$name),*]
            }
        }
    };
}

stats! {
    /// Packets redirected to an upstream.
    packets_original,
    /// Packets of an upstream given back their original source.
    packets_reply,
    /// Bytes of the packets redirected to an upstream, from the IP header on.
    bytes_original,
    /// Bytes of the packets given back their original source, from the IP header on.
    bytes_reply,
    /// Flows created.
    flows_created,
    /// Flows that timed out, made room for others, or whose context closed.
    flows_removed,
    /// Of those, unanswered ones that had to make room for new ones.
    flows_evicted,
    /// Flows in the table now.
    flows_current,
    /// Packets dropped because no memory for a flow or for a writable header was to be had.
    dropped_no_memory,
    /// Packets dropped because the table was full.
    dropped_table_full,
    /// Packets dropped because no source port was free at the upstream.
    dropped_no_port,
    /// Packets dropped because no route led to the upstream.
    dropped_no_route,
    /// Packets let through untouched because their headers were malformed or cut short.
    malformed,
    /// Errors of ICMP and ICMPv6 about packets of flows that were translated.
    icmp_translated,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            family: Family::V4,
            protocol: Protocol::Udp,
            hooks: HOOK_PRE_ROUTING | HOOK_LOCAL_OUT,
            prefix: 24,
            port_first: 53,
            port_last: 53,
            upstream_port: 5353,
            destination: [192, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            upstream: [198, 51, 100, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    fn config(rules: &[Rule]) -> Vec<u8> {
        let header = ConfigHeader {
            rules: rules.len() as u16,
        };
        let mut bytes = header.encode().to_vec();
        rules.iter().for_each(|rule| bytes.extend(rule.encode()));
        bytes
    }

    #[test]
    fn rule_survives_encoding() {
        assert_eq!(Rule::decode(&rule().encode()), Ok(rule()));
    }

    #[test]
    fn config_survives_encoding() {
        let bytes = config(&[
            rule(),
            Rule {
                prefix: 8,
                ..rule()
            },
        ]);
        let decoded: Result<Vec<_>, _> = decode_config(&bytes).unwrap().collect();
        assert_eq!(
            decoded,
            Ok(vec![
                rule(),
                Rule {
                    prefix: 8,
                    ..rule()
                }
            ])
        );
    }

    #[test]
    fn config_of_wrong_length_is_refused() {
        let bytes = config(&[rule()]);
        for length in 0..bytes.len() {
            assert!(decode_config(&bytes[..length]).is_err(), "length {length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode_config(&longer).err(), Some(Invalid::Length));
    }

    #[test]
    fn fields_without_meaning_are_refused() {
        let good = rule().encode();
        // (offset, value): family, protocol, hooks empty, hooks unknown, prefix, reserved, tail.
        for (offset, value) in [
            (0, 5),
            (1, 1),
            (2, 0),
            (2, 4),
            (3, 33),
            (10, 1),
            (31, 1),
            (47, 1),
        ] {
            let mut bad = good;
            bad[offset] = value;
            assert_eq!(Rule::decode(&bad), Err(Invalid::Rule), "offset {offset}");
        }
        let reversed = Rule {
            port_first: 2,
            port_last: 1,
            ..rule()
        };
        assert_eq!(Rule::decode(&reversed.encode()), Err(Invalid::Rule));
    }

    #[test]
    fn stats_survive_encoding() {
        let stats = Stats {
            bytes_reply: 7,
            malformed: u64::MAX,
            ..Stats::default()
        };
        assert_eq!(Stats::decode(&stats.encode()), Some(stats));
        assert_eq!(Stats::decode(&stats.encode()[1..]), None);
    }
}
