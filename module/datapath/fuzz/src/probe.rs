// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as each record of the probe's device: refused, or read to the last byte, so that they can be written again.

use mutex_abi::bytes::{Reader, Writer};
use mutex_abi::probe::{self, Report};

pub fn run(data: &[u8]) {
    if let Some(filter) = probe::Filter::decode(data) {
        assert_eq!(filter.encode(), data);
    }
    let read = Report::decode(&mut Reader::new(data));
    assert_eq!(read.is_some(), data.len() >= Report::SIZE);
    if let Some(report) = read {
        let mut again = [0; Report::SIZE];
        assert_eq!(report.encode(&mut Writer::new(&mut again)), Some(()));
        assert_eq!(again, data[..Report::SIZE]);
    }
}
