// SPDX-License-Identifier: MIT OR Apache-2.0

//! Networks, and classes of them that have names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mutex_abi::proxy::Family;

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// IP version.
    pub family: Family,
    /// The first of them; of IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// How many bits are the same.
    pub prefix: u8,
}

/// The classes, each with its networks: those of RFC 6890 and its registries that a proxy's rules ask for.
const CLASSES: [(&str, &[&str]); 3] = [
    // Of this host and this link: loopback (RFC 1122, RFC 4291), "this network", link-local (RFC 3927, RFC 4291).
    (
        "local",
        &[
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "255.255.255.255/32",
            "::/127",
            "fe80::/10",
        ],
    ),
    // Private use (RFC 1918), shared by carriers (RFC 6598), unique local (RFC 4193).
    (
        "private",
        &[
            "10.0.0.0/8",
            "100.64.0.0/10",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
        ],
    ),
    // RFC 5771, RFC 4291.
    ("multicast", &["224.0.0.0/4", "ff00::/8"]),
];

/// The networks of a class, `local`, `private` or `multicast`; none of another name.
pub fn class(name: &str) -> Vec<Network> {
    let networks = CLASSES.iter().find(|(class, _)| *class == name);
    let networks = networks.map_or(&[][..], |(_, networks)| networks);
    networks
        .iter()
        .filter_map(|text| Network::parse(text).ok())
        .collect()
}

impl Network {
    /// All addresses of an IP version.
    pub fn all(family: Family) -> Self {
        Self {
            family,
            address: [0; 16],
            prefix: 0,
        }
    }

    /// An address.
    pub fn host(address: IpAddr) -> Self {
        let (family, address) = parts(address);
        Self {
            family,
            address,
            prefix: family.bits(),
        }
    }

    /// Reads `192.0.2.0/24`, or an address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let wrong = || format!("`{text}` is no network such as 192.0.2.0/24 or 2001:db8::/32");
        if address.contains('%') {
            return Err(format!(
                "`{text}` names a link by `%`: say the address alone, and the link by `interface`"
            ));
        }
        let host = Self::host(address.parse().map_err(|_| wrong())?);
        let bits = host.family.bits();
        let length: u8 = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
        };
        if length > bits {
            return Err(format!(
                "the prefix is longer than the address, {bits} bits"
            ));
        }
        let network = Self {
            address: cut(host.address, length),
            prefix: length,
            ..host
        };
        // A socket shows an IPv4 address so, and no packet has one.
        if let (Family::V6, 96.., Some(four)) = (
            network.family,
            network.prefix,
            Ipv6Addr::from(network.address).to_ipv4_mapped(),
        ) {
            let four = Self {
                prefix: length.saturating_sub(96),
                ..Self::host(four.into())
            };
            return Err(format!(
                "no packet has an address of `{text}`: say {four} by itself"
            ));
        }
        if network.address != host.address {
            return Err(format!(
                "`{text}` has bits set behind its prefix; the network is {network}"
            ));
        }
        Ok(network)
    }

    /// Those of a class, or the one that `text` is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let networks = class(text);
        if !networks.is_empty() {
            return Ok(networks);
        }
        let looks_like_a_name = text.starts_with(|first: char| first.is_ascii_alphabetic())
            && !text.contains([':', '.', '/']);
        if looks_like_a_name {
            let names = CLASSES.iter().map(|(name, _)| *name);
            let hint = toml_mistake::nearest(text, names)
                .map(|name| format!("; did you mean `{name}`?"))
                .unwrap_or_else(|| "; there are `local`, `private` and `multicast`".to_owned());
            return Err(format!("no class of networks is called `{text}`{hint}"));
        }
        Self::parse(text).map(|network| vec![network])
    }

    /// Whether all of `other`'s addresses are in it.
    pub fn has(&self, other: &Self) -> bool {
        self.family == other.family
            && self.prefix <= other.prefix
            && cut(other.address, self.prefix) == self.address
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.address;
        match self.family {
            Family::V4 => write!(f, "{}", Ipv4Addr::new(a, b, c, d))?,
            Family::V6 => write!(f, "{}", Ipv6Addr::from(self.address))?,
        }
        match self.prefix == self.family.bits() {
            true => Ok(()),
            false => write!(f, "/{}", self.prefix),
        }
    }
}

/// IP version, and bytes as the kernel wants them.
pub(crate) fn parts(address: IpAddr) -> (Family, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (Family::V4, bytes)
        }
        IpAddr::V6(address) => (Family::V6, address.octets()),
    }
}

fn cut(address: [u8; 16], prefix: u8) -> [u8; 16] {
    let mask = match prefix {
        0 => 0,
        bits => u128::MAX << (128 - u32::from(bits)),
    };
    (u128::from_be_bytes(address) & mask).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written() {
        for text in [
            "192.0.2.0/24",
            "192.0.2.1",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::1",
            "::/0",
            "128.0.0.0/1",
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("192.0.2.1/24", "the network is 192.0.2.0/24"),
            ("192.0.2.0/33", "32 bits"),
            ("2001:db8::/129", "128 bits"),
            ("192.0.2/24", "is no network"),
            ("fe80::1%eth0", "names a link"),
            ("::ffff:192.0.2.1", "say 192.0.2.1 by itself"),
            ("::ffff:192.0.2.0/120", "say 192.0.2.0/24 by itself"),
            ("192.0.2.0/", "is no network"),
            ("", "is no network"),
        ] {
            let error = Network::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn classes_are_those_of_the_registries() {
        for (name, networks) in CLASSES {
            let read = Network::parse_all(name).unwrap();
            let written: Vec<_> = read.iter().map(ToString::to_string).collect();
            let expected = networks.iter().map(|text| text.replace("/32", ""));
            assert_eq!(written, expected.collect::<Vec<_>>());
        }
        let error = Network::parse_all("privat").unwrap_err();
        assert!(error.contains("did you mean `private`?"), "{error}");
        assert_eq!(Network::parse_all("10.0.0.1").unwrap().len(), 1);
    }

    #[test]
    fn a_network_has_what_is_in_it() {
        let read = |text| Network::parse(text).unwrap();
        assert!(read("10.0.0.0/8").has(&read("10.1.0.0/16")));
        assert!(read("10.0.0.0/8").has(&read("10.0.0.0/8")));
        assert!(!read("10.1.0.0/16").has(&read("10.0.0.0/8")));
        assert!(!read("10.0.0.0/8").has(&read("11.0.0.0/8")));
        assert!(!read("::/0").has(&read("10.0.0.0/8")));
        assert!(read("::/0").has(&read("fe80::/10")));
    }
}
