// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether packets arrived where they should.

use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::Traffic;

/// Fails unless every packet arrived at `target` and every answer came back from where the
/// client had sent to. In an open loop packets may be lost or come twice, which is counted: it asks
/// for more, perhaps, than can be done.
pub fn verify(target: Target, traffic: &Traffic, delivery: &Delivery) -> Result<(), Stop> {
    let (there, elsewhere) = match target {
        Target::Original => (delivery.at_original, delivery.at_upstream),
        Target::Upstream => (delivery.at_upstream, delivery.at_original),
    };
    let wanted = if traffic.load.is_open() {
        [there, delivery.replies]
    } else {
        [delivery.sent; 2]
    };
    let astray = wanted != [there, delivery.replies]
        || delivery.replies != delivery.replies_from_original
        || elsewhere != 0;
    let damaged = delivery.bad_payload + delivery.bad_checksum;
    if astray {
        return Err(Stop::Subject(format!("packets went astray: {delivery:?}")));
    }
    if damaged != 0 {
        return Err(Stop::Subject(format!(
            "{damaged} packets were damaged: {delivery:?}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_model::traffic::Load;

    const GOOD: Delivery = Delivery {
        sent: 3,
        at_upstream: 3,
        at_original: 0,
        replies: 3,
        replies_from_original: 3,
        bad_payload: 0,
        bad_checksum: 0,
    };

    const CLOSED: Traffic = Traffic {
        load: Load::Closed {
            round_trips: 3,
            burst: 1,
        },
        ..Traffic::USUAL
    };

    #[test]
    fn in_an_open_loop_packets_may_be_lost_but_not_astray() {
        let open = Traffic {
            load: Load::Open {
                rate: 1,
                packets: 3,
                churn: 0,
            },
            ..CLOSED
        };
        let verify = |delivery: &Delivery| verify(Target::Upstream, &open, delivery);
        assert!(verify(&Delivery { sent: 4, ..GOOD }).is_ok());
        for bad in [
            Delivery {
                at_original: 1,
                ..GOOD
            },
            Delivery {
                replies_from_original: 2,
                ..GOOD
            },
            Delivery {
                bad_checksum: 1,
                ..GOOD
            },
        ] {
            assert!(verify(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_complete_delivery_passes() {
        let verify = |target, delivery: &Delivery| verify(target, &CLOSED, delivery);
        assert!(verify(Target::Upstream, &GOOD).is_ok());
        assert!(verify(Target::Original, &GOOD).is_err());
        for bad in [
            Delivery { sent: 4, ..GOOD },
            Delivery {
                at_upstream: 2,
                ..GOOD
            },
            Delivery {
                at_original: 1,
                ..GOOD
            },
            Delivery { replies: 4, ..GOOD },
            Delivery {
                replies_from_original: 2,
                ..GOOD
            },
            Delivery {
                bad_payload: 1,
                ..GOOD
            },
            Delivery {
                bad_checksum: 1,
                ..GOOD
            },
        ] {
            assert!(verify(Target::Upstream, &bad).is_err(), "{bad:?}");
        }
    }
}
