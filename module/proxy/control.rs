// SPDX-License-Identifier: GPL-2.0

//! What requests of the Generic Netlink family do: see `abi/mutex_proxy.yaml`.

use core::sync::atomic::Ordering::Relaxed;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::c_str;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::abi::netlink::attribute::{NoRoom, Writer};
use crate::abi::netlink::configuration::{write_group, ToldRule, ToldUpstream};
use crate::abi::netlink::context::{read_which, Commit, ContextInfo, ContextName};
use crate::abi::netlink::flow::FlowsMeant;
use crate::abi::netlink::message::{kind, Command};
use crate::abi::netlink::set::{write_part, SetPart};
use crate::abi::proxy::flow::FlowFilter;
use crate::abi::proxy::Connection;
use crate::datapath::configuration::StageError;
use crate::hosted::{Context, ContextId, NotConfigured};
use crate::memory::Memory;
use crate::monitor;
use crate::registry::Registry;
use crate::rule_set::Configuration;
use crate::sys::netlink::{Family, Part, Position, Reason, Refused, Request};
use crate::sys::procfs::Directory;
use crate::told::Meant;

/// The family.
pub(crate) struct Control {
    memory: Arc<Memory>,
}

impl Control {
    /// Without any context.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            memory: Arc::new(Memory::new()?, GFP_KERNEL)?,
        })
    }
}

/// What belongs to a socket.
pub(crate) struct Session {
    registry: Arc<Registry>,
    state: Pin<KBox<Mutex<State>>>,
}

struct State {
    // None after an error: what comes next has to begin anew.
    staged: Option<Configuration>,
    // The socket's own.
    context: Option<ContextId>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let own = self.state.lock().context.take();
        if let Some(id) = own {
            self.registry.close(id);
        }
    }
}

impl From<StageError<Error>> for Refused {
    fn from(error: StageError<Error>) -> Self {
        match error {
            StageError::Refused(refusal) => refusal.into(),
            StageError::Memory(error) => error.into(),
        }
    }
}

impl From<NotConfigured> for Refused {
    fn from(why: NotConfigured) -> Self {
        let (error, message) = match why {
            NotConfigured::Error(error) => return error.into(),
            NotConfigured::Interrupted => (
                Reason::Again,
                c"another call makes or deletes a context here: try again",
            ),
            NotConfigured::Gone => (Reason::NotThere, c"the context is being deleted"),
            NotConfigured::TooManyContexts => {
                (Reason::NoSpace, c"the network namespace has 64 contexts already")
            }
            NotConfigured::TooManyRules => (
                Reason::NoSpace,
                c"with the other contexts' the network namespace would have more than 4096 rules",
            ),
            NotConfigured::TooManyUpstreams => (
                Reason::NoSpace,
                c"with the other contexts' the network namespace would have more than 4096 upstreams",
            ),
            NotConfigured::TooManySets => (
                Reason::NoSpace,
                c"with the other contexts' the network namespace would have more than 4096 sets",
            ),
            NotConfigured::TooManyElements => (
                Reason::NoSpace,
                c"with the other contexts' the network namespace would have sets of more than 1048576 elements",
            ),
            NotConfigured::OtherGeneration => {
                (Reason::Stale, c"the context has been configured meanwhile")
            }
        };
        Self::because(error, message)
    }
}

fn no_context() -> Refused {
    Refused::because(Reason::NotThere, c"there is no such context")
}

fn no_contexts() -> Refused {
    Refused::because(Reason::NotThere, c"the network namespace has no context")
}

fn nothing_staged() -> Refused {
    Refused::because(Reason::NoData, c"nothing is staged by this socket")
}

// Something that a message has first.
fn has(request: &Request<'_, Control>, wanted: u16) -> Result<bool, Refused> {
    let mut found = false;
    for attribute in request.attributes() {
        let attribute = attribute.map_err(crate::abi::netlink::refusal::Refusal::from)?;
        found |= attribute.kind == wanted;
    }
    Ok(found)
}

impl Control {
    fn stage(request: &Request<'_, Self>) -> Result<(), Refused> {
        let session = request.session()?;
        let mut state = session.state.lock();
        // First: whatever goes wrong, it is forgotten.
        let before = state.staged.take();
        let begins = has(request, kind::BEGIN)?;
        let mut staged = match (begins, before) {
            (true, _) => Configuration::new()?,
            (false, Some(staged)) => staged,
            (false, None) => {
                let message = c"nothing is staged yet, and this does not begin";
                return Err(Refused::because(Reason::NoData, message));
            }
        };
        staged.stage(request.attributes())?;
        state.staged = Some(staged);
        Ok(())
    }

    fn commit(request: &Request<'_, Self>, answer: &mut Writer<'_>) -> Result<(), Refused> {
        let commit = Commit::read(request.attributes())?;
        let session = request.known_session().ok_or_else(nothing_staged)?;
        let mut state = session.state.lock();
        let State { staged, context } = &mut *state;
        if staged.is_none() {
            return Err(nothing_staged());
        }
        let known = match commit.context {
            None => *context,
            Some(_) => None,
        };
        let (registry, expected) = (request.local, commit.generation);
        if commit.dry_run {
            let generation = registry.judge(commit.context, known, staged, expected)?;
            return Ok(answer.u32(kind::GENERATION, generation)?);
        }
        // Closes the context again, if it was opened for nothing.
        let call = registry.open(&request.net, commit.context, known)?;
        let generation = registry.configure(&call, staged, expected)?;
        if commit.context.is_none() {
            *context = Some(call.id());
        }
        Ok(answer.u32(kind::GENERATION, generation)?)
    }

    // The context that a message names, or the socket's own.
    fn which(request: &Request<'_, Self>) -> Result<ContextId, Refused> {
        match read_which(request.attributes())? {
            Some(name) => request.local.named(&name),
            None => request
                .known_session()
                .and_then(|session| session.state.lock().context),
        }
        .ok_or_else(no_context)
    }

    // The flows that a message means.
    fn meant(registry: &Registry, read: &FlowsMeant) -> Result<Meant, Refused> {
        let owner = match &read.context {
            Some(name) => Some(registry.named(name).ok_or_else(no_context)?.owner()),
            None => None,
        };
        Ok(Meant {
            owner,
            filter: read.filter.unwrap_or(FlowFilter::ALL),
        })
    }

    // What there is to tell of a context; `None` if it was never configured, or is gone.
    fn info(
        registry: &Registry,
        id: ContextId,
        name: Option<ContextName>,
    ) -> Option<ContextInfo> {
        registry.with(id, |context| {
            let configuration = &context.configuration;
            let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
            ContextInfo {
                name,
                generation: context.generation,
                groups: count(configuration.groups().len()),
                upstreams: count(configuration.upstreams().len()),
                rules: count(configuration.rules().len()),
                sets: count(configuration.sets().len()),
            }
        })
    }
}

impl Family for Control {
    type Session = Session;
    type Local = Registry;
    const DIRECTORY: &'static CStr = c_str!("mutex_proxy");

    fn enter(&self) -> Result<Registry> {
        Registry::new(self.memory.clone())
    }

    fn publish(directory: &mut Directory<Registry>) -> Result {
        monitor::publish(directory)
    }

    fn session(registry: &Arc<Registry>) -> Result<Session> {
        let state = State {
            staged: None,
            context: None,
        };
        Ok(Session {
            registry: registry.clone(),
            state: KBox::pin_init(new_mutex!(state), GFP_KERNEL_ACCOUNT)?,
        })
    }

    fn request(request: &Request<'_, Self>, answer: &mut Writer<'_>) -> Result<(), Refused> {
        let registry = request.local;
        match Command::from_number(request.command) {
            Some(Command::Stage) => Self::stage(request),
            Some(Command::Commit) => Self::commit(request, answer),
            Some(Command::ContextGet) => {
                let name = read_which(request.attributes())?;
                let info = Self::info(registry, Self::which(request)?, name);
                Ok(info.ok_or_else(no_context)?.write(answer)?)
            }
            Some(Command::ContextDel) => {
                let name = read_which(request.attributes())?.ok_or_else(|| {
                    let message = c"only a context with a name is deleted";
                    Refused::because(Reason::Invalid, message)
                })?;
                match registry.delete(&name)? {
                    true => Ok(()),
                    false => Err(no_context()),
                }
            }
            Some(Command::StatisticsGet) => {
                let stats = registry.stats().ok_or_else(no_contexts)?;
                Ok(stats.write(answer)?)
            }
            Some(Command::OriginalGet) => {
                let connection = Connection::read(request.attributes())?;
                let told = registry.original(&connection);
                let told = told.ok_or_else(|| {
                    let message = c"no such connection was redirected";
                    Refused::because(Reason::NotThere, message)
                })?;
                Ok(told.write(answer)?)
            }
            Some(Command::FlowDel) => {
                let read = FlowsMeant::read(request.attributes())?;
                if read.filter.is_none() {
                    let message = c"which flows is not said: a filter is needed, which may be empty";
                    return Err(Refused::because(Reason::Invalid, message));
                }
                let meant = Self::meant(registry, &read)?;
                let gone = registry.end_flows(&meant).ok_or_else(no_contexts)?;
                Ok(answer.u64(kind::FLOWS, gone)?)
            }
            Some(
                Command::GroupGet
                | Command::UpstreamGet
                | Command::RuleGet
                | Command::SetGet
                | Command::FlowGet,
            ) => Err(Refused::because(
                Reason::NotSupported,
                c"only a dump of it can be had",
            )),
            Some(
                Command::UpstreamFailed
                | Command::UpstreamBack
                | Command::TableFull
                | Command::ContextGone,
            )
            | None => Err(Refused::because(
                Reason::NotSupported,
                c"nobody can ask for it",
            )),
        }
    }

    fn dump(
        request: &Request<'_, Self>,
        position: &mut Position,
        message: &mut Writer<'_>,
    ) -> Result<Part, Refused> {
        let registry = request.local;
        let command = Command::from_number(request.command);
        if command == Some(Command::ContextGet) {
            let [place, ..] = position;
            while let Some((at, id, name)) = registry.next_named(*place as usize) {
                // Unless it goes at this moment.
                let info = Self::info(registry, id, Some(name));
                if let Some(info) = info {
                    info.write(message)?;
                }
                *place = (at as u64).wrapping_add(1);
                if info.is_some() {
                    return Ok(Part {
                        written: true,
                        generation: 0,
                    });
                }
            }
            return Ok(Part::END);
        }
        if command == Some(Command::FlowGet) {
            let meant = Self::meant(registry, &FlowsMeant::read(request.attributes())?)?;
            // Else nobody would hear of it.
            if *position == Position::default() && registry.instance().is_none() {
                return Err(no_contexts());
            }
            // One that has no room is told in the next message.
            let mut after = *position;
            let told = registry.next_flow(&mut after, &meant);
            if let Some(told) = &told {
                told.write(message)?;
            }
            *position = after;
            return Ok(Part {
                written: told.is_some(),
                generation: 0,
            });
        }
        let id = Self::which(request)?;
        let part = registry.with(id, |context| {
            Ok::<_, Refused>(Part {
                written: tell(context, command, position, message)?,
                generation: id.with_generation(context.generation),
            })
        });
        part.ok_or_else(no_context)?
    }

    fn leave(registry: &Registry) {
        registry.leave();
    }
}

// Tells of what is at `position`, and sets that to what is next; false: there is nothing.
fn tell(
    context: &Context,
    command: Option<Command>,
    position: &mut Position,
    message: &mut Writer<'_>,
) -> Result<bool, NoRoom> {
    let configuration = &context.configuration;
    if command == Some(Command::SetGet) {
        return tell_set(configuration, position, message);
    }
    let [place, ..] = position;
    let at = *place as usize;
    match command {
        Some(Command::GroupGet) => match configuration.groups().nth(at) {
            Some(group) => write_group(message, kind::GROUP, &group, core::iter::empty())?,
            None => return Ok(false),
        },
        Some(Command::UpstreamGet) => match configuration.upstreams().get(at) {
            Some(upstream) => {
                let before = configuration.upstreams().iter().take(at).rev();
                let member = before.take_while(|one| one.group == upstream.group).count();
                let told = ToldUpstream {
                    upstream: *upstream,
                    connections: context.prepared.connections(upstream, member),
                };
                told.write(message)?;
            }
            None => return Ok(false),
        },
        _ => match configuration.rules().get(at) {
            Some(rule) => {
                let matches = context.prepared.matches.get(at);
                let told = ToldRule {
                    rule: *rule,
                    number: *place as u32,
                    connections: matches.map_or(0, |count| count.load(Relaxed)),
                };
                told.write(message)?;
            }
            None => return Ok(false),
        },
    }
    *place = place.wrapping_add(1);
    Ok(true)
}

// Bytes of elements in one message of a dump.
const PART: usize = 2048;

// The same of sets: a part of one in each message.
fn tell_set(
    configuration: &Configuration,
    position: &mut Position,
    message: &mut Writer<'_>,
) -> Result<bool, NoRoom> {
    let [place, from, ..] = position;
    let Some(staged) = configuration.sets().get(*place as usize) else {
        return Ok(false);
    };
    let begins = *from == 0;
    let part = SetPart {
        number: *place as u32,
        set: begins.then_some(staged.set),
        elements: begins.then_some(staged.len() as u32),
    };
    let mut told = *from;
    let elements = core::iter::from_fn(|| {
        let element = staged.whole()?.element(staged.set.kind, told as usize)?;
        told = told.wrapping_add(1);
        Some(element)
    });
    let mut elements = elements.peekable();
    write_part(message, kind::SET, &part, &mut elements, PART)?;
    let left = elements.peek().is_some();
    drop(elements);
    (*place, *from) = match left {
        // It was looked at, and not told.
        true => (*place, told.wrapping_sub(1)),
        false => (place.wrapping_add(1), 0),
    };
    Ok(true)
}
