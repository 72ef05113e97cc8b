// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module's parameters, whichever it has: under traffic they change, and nonsense is refused.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use anyhow::{ensure, Context as _, Result};
use nix::errno::Errno;

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, Setup};
use super::GuestTest;
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// Where a loaded module's parameters are.
const DIRECTORY: &str = "/sys/module/mutex_proxy/parameters";

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "parameters-under-traffic",
            "every parameter takes every kind of value while packets pass",
            change_under_traffic,
        ),
        GuestTest::single(
            "parameters-out-of-range",
            "values out of range and garbage are refused and change nothing",
            nonsense_is_refused,
        ),
        GuestTest::single(
            "parameters-at-load",
            "the module loads with each parameter at its bounds, and not beyond",
            bounds_at_load,
        ),
    ]
}

/// One parameter, as the module describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    low: i64,
    high: i64,
}

impl Parameter {
    fn path(&self) -> String {
        format!("{DIRECTORY}/{}", self.name)
    }

    fn value(&self) -> Result<String> {
        let path = self.path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim_end().to_owned())
    }

    fn write(&self, value: &str) -> io::Result<()> {
        fs::write(self.path(), value)
    }

    fn is_writable(&self) -> Result<bool> {
        let path = self.path();
        let metadata = fs::metadata(&path).with_context(|| format!("cannot look at {path}"))?;
        // The owner's bit: that root may write is another matter.
        Ok(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o200 != 0)
    }

    /// Values that it must take: the bounds, and some between.
    fn good(&self) -> BTreeSet<i64> {
        let middle = self.low + (self.high - self.low) / 2;
        BTreeSet::from([self.low, self.low + 1, middle, self.high - 1, self.high])
    }

    /// What it must refuse.
    fn bad(&self) -> Vec<String> {
        let mut bad = vec![
            (self.low - 1).to_string(),
            (self.high + 1).to_string(),
            (u64::from(u32::MAX) + 1).to_string(),
            "99999999999999999999999".to_owned(),
        ];
        let garbage = [
            "-1", "\n", "x", "0x", "1x", "1 2", "1,2", "1.5", "--1", "\u{e9}", "999999z",
        ];
        bad.extend(garbage.map(str::to_owned));
        bad
    }
}

/// The parameters of the module's file, by what it says of itself: "… (low to high, default x)".
fn described() -> Result<Vec<Parameter>> {
    let bytes =
        fs::read(PROXY_MODULE_PATH).with_context(|| format!("cannot read {PROXY_MODULE_PATH}"))?;
    descriptions(&bytes)
        .map(|(name, description)| {
            let (low, high) = bounds(description)
                .with_context(|| format!("{name} says no bounds: {description:?}"))?;
            Ok(Parameter {
                name: name.to_owned(),
                low,
                high,
            })
        })
        .collect()
}

/// What MODULE_PARM_DESC leaves in a module: strings "parm=name:description".
fn descriptions(module: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    module
        .split(|&byte| byte == 0)
        .filter_map(|string| std::str::from_utf8(string.strip_prefix(b"parm=")?).ok())
        .filter_map(|string| string.split_once(':'))
}

fn bounds(description: &str) -> Option<(i64, i64)> {
    let (_, bounds) = description.rsplit_once(" (")?;
    let (low, rest) = bounds.split_once(" to ")?;
    let (high, _) = rest.split_once(", default ")?;
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low < high).then_some((low, high))
}

/// The same of the loaded module, which must have these and no others.
fn loaded() -> Result<Vec<Parameter>> {
    let parameters = described()?;
    let described: BTreeSet<_> = parameters.iter().map(|one| one.name.clone()).collect();
    let found = fs::read_dir(DIRECTORY)
        .with_context(|| format!("cannot list {DIRECTORY}"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<BTreeSet<_>>>()?;
    ensure!(
        found == described && !found.is_empty(),
        "sysfs has the parameters {found:?}, the module's file describes {described:?}"
    );
    Ok(parameters)
}

fn change_under_traffic() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let parameters = loaded()?;
    let mut changed = 0;
    for parameter in &parameters {
        if !parameter.is_writable()? {
            continue;
        }
        let before = parameter.value()?;
        let mut beside = of_every_sort(&servers)?;
        for value in parameter.good() {
            let value = value.to_string();
            let write = || {
                parameter
                    .write(&value)
                    .with_context(|| format!("cannot write {value} to {}", parameter.path()))
            };
            // Not one after the other: packets shall be under way at the moment of the change.
            let result = thread::scope(|scope| {
                let talk = scope.spawn(|| {
                    (0..20).try_for_each(|_| beside.iter_mut().try_for_each(|one| one.say()))
                });
                write()?;
                talk.join().expect("no panic in a conversation")
            });
            result.with_context(|| format!("{} is {value}", parameter.name))?;
            let now = parameter.value()?;
            ensure!(
                now == value,
                "{} is {now} after {value} was written",
                parameter.name
            );
            changed += 1;
        }
        parameter
            .write(&before)
            .with_context(|| format!("cannot restore {}", parameter.path()))?;
        of_every_sort(&servers)
            .with_context(|| format!("after {} is {before} again", parameter.name))?;
    }
    ensure!(changed > 0, "no parameter can be changed at run time");
    drop((servers, context));
    setup.finish()
}

fn nonsense_is_refused() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    for parameter in loaded()? {
        let before = parameter.value()?;
        let writable = parameter.is_writable()?;
        for value in parameter.bad() {
            let result = parameter.write(&value);
            let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
            // The kernel's own parser says ERANGE of what no 32 bits can hold.
            let fits = value
                .parse::<u64>()
                .is_ok_and(|value| u32::try_from(value).is_ok());
            let expected = match errno.map(Errno::from_raw) {
                Some(Errno::EINVAL) => writable,
                Some(Errno::ERANGE) => writable && !fits,
                Some(Errno::EACCES | Errno::EIO | Errno::EPERM) => !writable,
                _ => false,
            };
            ensure!(
                expected,
                "{value:?} to {}: expected a refusal, got {result:?}",
                parameter.path()
            );
            let now = parameter.value()?;
            ensure!(
                now == before,
                "{} was {before} and is {now} after {value:?} was refused",
                parameter.name
            );
        }
    }
    let servers = Servers::of_both(&setup.layout)?;
    of_every_sort(&servers)?;
    drop((servers, context));
    setup.finish()
}

/// Loads the module with `value` for `parameter` only.
fn load(parameter: &Parameter, value: &str) -> Result<LoadedModule> {
    let parameters = Parameters::from([(parameter.name.clone(), value.to_owned())]);
    LoadedModule::load(PROXY_MODULE_PATH, &parameters)
}

fn bounds_at_load() -> Result<()> {
    for parameter in described()? {
        for value in [parameter.low, parameter.high].map(|value| value.to_string()) {
            let module = load(&parameter, &value)?;
            let now = parameter.value()?;
            ensure!(
                now == value,
                "{} is {now} after loading with {value}",
                parameter.name
            );
            module.unload()?;
        }
        for value in [parameter.high + 1, parameter.low - 1] {
            let loaded = load(&parameter, &value.to_string());
            let errno = match loaded {
                Ok(_) => None,
                Err(error) => error.downcast_ref::<Errno>().copied(),
            };
            ensure!(
                matches!(errno, Some(Errno::EINVAL | Errno::ERANGE)),
                "{}={value} at load: expected EINVAL or ERANGE, got {errno:?}",
                parameter.name
            );
            ensure!(
                !Path::new(DIRECTORY).exists(),
                "{}={value} was refused, yet the module is loaded",
                parameter.name
            );
        }
    }
    // The bounds of all at once, with flows in the table.
    for bound in [|one: &Parameter| one.low, |one: &Parameter| one.high] {
        let parameters: Vec<_> = described()?
            .iter()
            .map(|one| (one.name.clone(), bound(one).to_string()))
            // With a single flow nothing can be opened beside another.
            .filter(|(name, _)| name != "max_flows")
            .collect();
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let setup = Setup::with_parameters(&parameters)?;
        let context = setup.context(&all_rules())?;
        let servers = Servers::of_both(&setup.layout)?;
        of_every_sort(&servers).with_context(|| format!("with {parameters:?}"))?;
        drop((servers, context));
        setup.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn descriptions_are_read_off_a_module() {
        let module = b"junk\0license=GPL\0parm=udp_timeout:Seconds (of what) (1 to 86400, default \
            180)\0parmtype=udp_timeout:uint\0parm=odd:Nothing said\0parm=place:Where (-399 to -201, \
            default -250)\0";
        let found: Vec<_> = descriptions(module).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].0, "udp_timeout");
        assert_eq!(bounds(found[0].1), Some((1, 86400)));
        assert_eq!(bounds(found[1].1), None);
        assert_eq!(bounds(found[2].1), Some((-399, -201)));
    }

    #[test]
    fn bad_values_are_out_of_bounds() {
        let parameter = Parameter {
            name: String::new(),
            low: 1,
            high: 10,
        };
        let good = parameter.good();
        assert_eq!(good, BTreeSet::from([1, 2, 5, 9, 10]));
        assert!(parameter.bad().iter().all(|bad| {
            bad.parse()
                .map_or(true, |number: i64| !(1..=10).contains(&number))
        }));
    }
}
