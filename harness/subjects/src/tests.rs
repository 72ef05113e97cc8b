// SPDX-License-Identifier: MIT OR Apache-2.0

//! What directories say, and what is told of those that are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use mutexlab_host::paths::repository_above;
use mutexlab_model::facts::{Origin, Place};
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Checksum, Ends, Family, Load, Protocol, Traffic, Usual as _, Way};
use mutexlab_protocol::datapath::{Deed, How, Step};
use mutexlab_protocol::GuestCell;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

use crate::directory::Directory;
use crate::{Source, Subjects};

fn repository() -> PathBuf {
    repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn traffic(ends: Ends, family: Family, protocol: Protocol) -> Traffic {
    Traffic {
        ends,
        family,
        protocol,
        ..Traffic::USUAL
    }
}

fn cell(name: &str, traffic: Traffic) -> GuestCell {
    GuestCell {
        id: name.to_owned(),
        subject: Subject::named(name).unwrap(),
        parameters: [].into(),
        traffic,
        ballast: None,
        sabotage: None,
        mischief: None,
        lens: false,
    }
}

/// What the repository's subject of this name does for some traffic.
fn steps(name: &str, traffic: Traffic) -> Vec<Step> {
    let shipped = Subjects::shipped(&repository()).unwrap();
    match shipped.datapath(&cell(name, traffic)).unwrap().how {
        How::Declared(declared) => declared.steps,
        How::Module(_) => panic!("{name} is no directory"),
    }
}

fn rules(name: &str, traffic: Traffic) -> String {
    let rules = steps(name, traffic)
        .into_iter()
        .filter_map(|step| match step.deed {
            Deed::Nft { rules, .. } => Some(rules),
            _ => None,
        });
    rules.collect()
}

/// A directory with these files, read.
fn load(files: &[(&str, &str)]) -> Result<Directory, String> {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("mine");
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Directory::load(&Subject::named("mine").unwrap(), &directory).map_err(|error| {
        let place = format!("{}/", place.path().display());
        format!("{error:#}").replace(&place, "")
    })
}

#[test]
fn rules_name_the_right_addresses() {
    let text = rules("nft-dnat", traffic(Ends::Wire, Family::V6, Protocol::Tcp));
    let rule = "ip6 daddr 2001:db8:2::c8 tcp dport 7 dnat to [2001:db8:2::64]:7007\n";
    assert_eq!(text.matches(rule).count(), 2, "{text}");
    let text = rules("nft-dnat", traffic(Ends::Wire, Family::V4, Protocol::Udp));
    let rule = "ip daddr 198.51.100.200 udp dport 7 dnat to 198.51.100.100:7007\n";
    assert_eq!(text.matches(rule).count(), 2, "{text}");
    let text = rules(
        "nft-flowtable",
        traffic(Ends::Stack, Family::V4, Protocol::Udp),
    );
    let rule = "ip daddr 198.51.100.3 udp dport 7 dnat to 198.51.100.2:7007\n";
    assert_eq!(text.matches(rule).count(), 2, "{text}");
    assert!(text.contains("devices = { clients, servers };"), "{text}");
}

#[test]
fn sixty_rules_for_others_stand_before_those_for_the_lan_and_the_rest() {
    for (family, first, last, lan) in [
        (
            Family::V4,
            "ip daddr 203.0.113.0/30 ",
            "ip daddr 203.0.113.236/30 ",
            "ip daddr 198.51.100.0/24 accept\n",
        ),
        (
            Family::V6,
            "ip6 daddr 2001:db8:ff00::/48 ",
            "ip6 daddr 2001:db8:ff3b::/48 ",
            "ip6 daddr 2001:db8:2::/64 accept\n",
        ),
    ] {
        let text = rules(
            "nft-dnat-direct",
            traffic(Ends::Wire, family, Protocol::Udp),
        );
        for part in [first, last, lan] {
            assert_eq!(text.matches(part).count(), 2, "{part} in {text}");
        }
        assert_eq!(
            text.matches("meta l4proto udp dnat to").count(),
            2 * 61,
            "{text}"
        );
    }
}

#[test]
fn everybody_of_the_repository_s_can_have_forwarded_streams_between_sockets() {
    let shipped = Subjects::shipped(&repository()).unwrap();
    assert!(shipped.names().count() > 8);
    let stream = Traffic {
        load: Load::Bulk { bytes: 1 },
        checksum: Checksum::None,
        ..traffic(Ends::Stack, Family::V4, Protocol::Tcp)
    };
    assert!(stream.cloned.is_usual());
    // Whose a connection is that passes through nobody knows.
    let local = ["mprox-cgroup", "mprox-user"].map(|name| Subject::named(name).unwrap());
    for subject in shipped.names() {
        if local.contains(subject) {
            assert!(shipped.refusal(subject, &stream).is_some(), "{subject}");
            continue;
        }
        assert_eq!(shipped.refusal(subject, &stream), None, "{subject}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let shipped = Subjects::shipped(&repository()).unwrap();
    let tcp = traffic(Ends::Stack, Family::V4, Protocol::Tcp);
    let wire = Traffic {
        ends: Ends::Wire,
        ..tcp
    };
    let udp = traffic(Ends::Stack, Family::V4, Protocol::Udp);
    let v6 = traffic(Ends::Stack, Family::V6, Protocol::Tcp);
    let local = Traffic {
        way: Way::Local,
        ..tcp
    };
    for (name, traffic, reason) in [
        ("tproxy", wire, "no packets that are made on the wire"),
        ("redsocks", udp, "for TCP"),
        ("redsocks", v6, "IPv4"),
        ("nft-flowtable", wire, "none of the hooks"),
        ("nft-flowtable", local, "forwarded"),
    ] {
        let refusal = shipped.refusal(&Subject::named(name).unwrap(), &traffic);
        assert!(
            refusal
                .as_ref()
                .is_some_and(|refusal| refusal.contains(reason)),
            "{refusal:?}"
        );
    }
    for name in ["none", "nft-dnat", "module"] {
        for traffic in [wire, udp, local, v6] {
            let subject = Subject::named(name).unwrap();
            assert_eq!(shipped.refusal(&subject, &traffic), None);
        }
    }
}

#[test]
fn a_scenario_is_told_of_what_its_subject_cannot_have_and_of_names_that_are_wrong() {
    let text = |subjects: &str, exclude: &str| {
        format!(
            "question = \"?\"\nmode = \"virtual\"\nkernels = [\"7.3\"]\ncpus = [1]\nsubjects = {subjects}\n\
             [traffic]\nways = [\"forward\"]\nfamilies = [\"v4\"]\nprotocols = [\"udp\"]\npayloads = [64]\n\
             round-trips = 1\nwarm-up = 0\n{exclude}"
        )
    };
    let check = |subjects: &str, exclude: &str| {
        let file =
            ScenarioFile::parse("x".into(), "x.toml".into(), text(subjects, exclude)).unwrap();
        let plan = Plan::new(&file.scenario).unwrap();
        Subjects::of(&file, &repository())
            .and_then(|subjects| subjects.check(&plan, &file))
            .map_err(|error| error.to_string())
    };
    let error = check("[\"none\", \"tproxy\"]", "").unwrap_err();
    let start =
        "x.toml:5:21: tproxy cannot have the traffic forward-v4-udp-64: a proxy in user space";
    assert!(error.starts_with(start), "{error}");
    assert_eq!(
        check(
            "[\"none\", \"tproxy\"]",
            "[[exclude]]\nsubject = \"tproxy\"\n"
        ),
        Ok(())
    );
    let error = check("[\"none\", \"nft-dnatt\"]", "").unwrap_err();
    let start = "x.toml:5:21: there is no subject `nft-dnatt`; did you mean `nft-dnat`?";
    assert!(error.starts_with(start), "{error}");
    let error = check("[\"./no-such\"]", "").unwrap_err();
    assert_eq!(error, "x.toml:5:13: there is no ./no-such/subject.toml");
}

#[test]
fn a_directory_is_a_subject() {
    let directory = load(&[
        (
            "subject.toml",
            "about = \"mine\"\nprograms = [\"conntrack\"]\n\
             [arrives]\nat = \"upstream\"\nfrom = \"router\"\n\
             [[up]]\nmodule = \"kmod\"\nparameters = { buckets = 4096, quick = true }\n\
             [[up]]\nnft = \"rules.nft\"\nin = \"upstream\"\n\
             [[up]]\ndaemon = \"nginx\"\narguments = [\"-p\", \"{{ flows }}\"]\n\
             [[up]]\nrun = \"up.sh\"\ndown = \"down.sh\"\n\
             [[up]]\nbpf = \"nat.bpf.c\"\nlink = \"servers\"\n",
        ),
        ("kmod/Kbuild", "obj-m += my_nat.o\nmy_nat-y := a.o b.o\n"),
        ("rules.nft", "table ip x {\n}\n"),
        ("up.sh", "echo {{ links.clients }}\n"),
        ("down.sh", "true\n"),
        ("nat.bpf.c", ""),
    ])
    .unwrap();
    let facts = directory.facts();
    assert_eq!(
        (facts.arrives.at, facts.arrives.from),
        (Place::Upstream, Origin::Router)
    );
    assert!(facts.redirects() && !facts.counts.exact && facts.counts.hooks);
    let programs: Vec<&str> = directory.programs().collect();
    assert_eq!(programs, ["nginx", "ip", "conntrack"]);
    let datapath = directory.datapath(&Traffic::USUAL, &[].into()).unwrap();
    // The guest is not told where that is on this machine.
    let told = format!("{datapath:?}");
    assert!(!told.contains(directory.path.to_str().unwrap()), "{told}");
    let How::Declared(declared) = datapath.how else {
        panic!("it is no module of ours");
    };
    assert_eq!(declared.steps[1].place, "mine/rules.nft");
    let [module, _, daemon, run, bpf] = &declared.steps[..] else {
        panic!("{declared:?}");
    };
    let Deed::Module { path, parameters } = &module.deed else {
        panic!("{module:?}");
    };
    assert_eq!(path, "/lab/subjects/mine/my_nat.ko");
    assert_eq!(parameters["quick"], "Y");
    assert!(matches!(&daemon.deed, Deed::Daemon(daemon) if daemon.arguments[1] == "1"));
    assert!(matches!(&run.deed, Deed::Run { up, .. } if up.text == "echo clients\n"));
    assert!(matches!(&bpf.deed, Deed::Bpf { path, .. } if path.ends_with("/nat.bpf.o")));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let step = |text: &str| format!("about = \"x\"\n[[up]]\n{text}\n");
    let files =
        |text: &str| load(&[("subject.toml", text), ("a.nft", ""), ("m/Kbuild", "")]).unwrap_err();
    for (text, message) in [
        (
            "abuot = \"x\"".to_owned(),
            "mine/subject.toml:1:1: unknown field `abuot`, expected",
        ),
        (
            step("nft = \"a.nft\"\nrun = \"x\""),
            "mine/subject.toml:2:1: a step is just one of",
        ),
        (step(""), "mine/subject.toml:2:1: a step is just one of"),
        (
            step("nft = \"b.nft\""),
            "mine/subject.toml:3:7: there is no \"b.nft\" in mine",
        ),
        (
            step("nft = \"../a.nft\""),
            "mine/subject.toml:3:7: \"../a.nft\" has to lie in",
        ),
        (
            step("nft = \"/etc/passwd\""),
            "mine/subject.toml:3:7: \"/etc/passwd\" has to lie in",
        ),
        (
            step("nft = \"a.nft\"\nlistens = 7"),
            "mine/subject.toml:4:11: `listens` does not belong",
        ),
        (
            step("module = \"m\""),
            "mine/subject.toml:3:10: mine/m/Kbuild has no line `obj-m",
        ),
        (
            step("bpf = \"a.nft\"\nlink = \"eth0\""),
            "mine/subject.toml:4:8: the router has no link",
        ),
        (
            "about = \"x\"\n[arrives]\nat = \"nowhere\"".to_owned(),
            "mine/subject.toml:3:6: unknown value `nowhere`",
        ),
        (
            "about = \"x\"\n[traffic]\nfamilies = []".to_owned(),
            "mine/subject.toml:3:12: traffic.families is empty",
        ),
        (
            "about = \"x\"\n[counts]\noffloaded = true".to_owned(),
            "mine/subject.toml:3:13: connections that are offloaded",
        ),
        (
            "about = \"x\"\n[kernel]\noptions = [\"CONFIG_X\"]".to_owned(),
            "mine/subject.toml:3:12: CONFIG_X: without",
        ),
        (
            "about = \"x\"\n[parameters]\nnice-name = 1".to_owned(),
            "mine/subject.toml:3:13: \"nice-name\" is no name of a parameter",
        ),
    ] {
        let error = files(&text);
        assert!(error.starts_with(message), "{error}\n{text}");
    }
}

#[test]
fn what_a_template_asks_for_and_nobody_knows_is_told_with_its_place() {
    for (text, message) in [
        (
            "table {{ ip }} {\n  {{ orignal.ip }}\n}\n",
            "/rules.nft:2:6: nothing of this name",
        ),
        (
            "{{ original.prot }}\n",
            "/rules.nft:1:4: nothing of this name",
        ),
        ("x\n{% for %}\n", "/rules.nft:2:8: syntax error"),
    ] {
        let directory = load(&[
            (
                "subject.toml",
                "about = \"x\"\n[[up]]\nnft = \"rules.nft\"\n",
            ),
            ("rules.nft", text),
        ])
        .unwrap();
        let error = format!(
            "{:#}",
            directory.datapath(&Traffic::USUAL, &[].into()).unwrap_err()
        );
        assert!(error.contains(message), "{error}");
    }
}

/// What a subject with three parameters makes of a template, with these values of a cell's.
fn with_parameters(template: &str, chosen: &[(&str, &str)]) -> Result<String, String> {
    let directory = load(&[
        (
            "subject.toml",
            "about = \"x\"\n[parameters]\ncount = 2\nname = \"eth\"\nquick = false\n\
             [[up]]\nnft = \"rules.nft\"\n\
             [[up]]\nmodule = \"kmod\"\nparameters = { size = \"{{ parameters.count }}\", depth = 3 }\n",
        ),
        ("rules.nft", template),
        ("kmod/Kbuild", "obj-m := a.o\n"),
    ])?;
    let chosen = chosen
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let datapath = directory.datapath(&Traffic::USUAL, &chosen.collect());
    let How::Declared(declared) = datapath.map_err(|error| format!("{error:#}"))?.how else {
        panic!("it is no module of ours");
    };
    let [Deed::Nft { rules, .. }, Deed::Module { parameters, .. }] =
        [0, 1].map(|step| declared.steps[step].deed.clone())
    else {
        panic!("{declared:?}");
    };
    assert_eq!(parameters["depth"], "3");
    Ok(format!("{rules} size={}", parameters["size"]))
}

#[test]
fn templates_know_parameters_with_the_values_of_a_cell() {
    let template = "{% for number in range(parameters.count) %}{{ number }}{% endfor %} \
                    {{ parameters.name }}{% if parameters.quick %}!{% endif %}";
    assert_eq!(with_parameters(template, &[]).unwrap(), "01 eth size=2");
    let chosen = [("count", "3"), ("quick", "Y"), ("name", "x")];
    assert_eq!(with_parameters(template, &chosen).unwrap(), "012 x! size=3");
    let error = with_parameters("{{ parameters.cuont }}", &[]).unwrap_err();
    assert!(
        error.contains("/rules.nft:1:4: nothing of this name"),
        "{error}"
    );
    let error = with_parameters("", &[("cuont", "1")]).unwrap_err();
    assert_eq!(error, "the subject mine: no parameter `cuont` is declared");
}

#[test]
fn what_a_scenario_says_of_parameters_is_checked_against_what_is_declared() {
    let error = |parameters: &str| {
        let text = format!(
            "question = \"?\"\nmode = \"virtual\"\nkernels = [\"7.3\"]\ncpus = [1]\n\
             subjects = [\"nft-filter\"]\n[parameters.nft-filter]\n{parameters}\n[traffic]\n\
             ways = [\"forward\"]\nfamilies = [\"v4\"]\nprotocols = [\"udp\"]\npayloads = [64]\n\
             round-trips = 10\nwarm-up = 1\n"
        );
        let file = ScenarioFile::parse("a".into(), "a.toml".into(), text).unwrap();
        Subjects::of(&file, &repository())
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(error("rules = [10, 100]"), None);
    assert_eq!(
        error("rulse = [10]").unwrap(),
        "a.toml:7:10: the subject nft-filter: it declares no parameter `rulse`; did you mean `rules`?"
    );
    assert_eq!(
        error("rules = [10, true]").unwrap(),
        "a.toml:7:14: the subject nft-filter: `rules` is a number, and not true or false"
    );
}

#[test]
fn another_file_is_another_subject() {
    let with = |text: &str| {
        let files = [("subject.toml", "about = \"x\"\n"), ("notes", text)];
        load(&files).unwrap().sha256
    };
    assert_eq!(with("a"), with("a"));
    assert_ne!(with("a"), with("b"));
}

#[test]
fn what_guests_get_is_told_by_its_path_there() {
    let shipped = Subjects::shipped(&repository()).unwrap();
    let programs: Vec<&str> = shipped.programs().into_iter().collect();
    assert!(programs.contains(&"redsocks") && programs.contains(&"microsocks"));
    let files = shipped.files();
    let program = files
        .iter()
        .find(|file| file.path == "/lab/subjects/xdp-forward/forward.bpf.o");
    let source = &program.expect("XDP has its program").source;
    assert!(matches!(source, Source::BpfSource(source) if source.ends_with("forward.bpf.c")));
}
