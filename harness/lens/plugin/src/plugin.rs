// SPDX-License-Identifier: MIT OR Apache-2.0

//! What QEMU calls.
//!
//! While everything is told, translations may be thrown away (which [`Api::reset`] does) only when all
//! CPUs are halted. QEMU 7.2 keeps, for each CPU, whose accesses to memory are to be told, and forgets it
//! only when an instruction ends regularly or the CPU leaves its loop as it does in HLT; where a
//! translation goes on with another one in the middle of an instruction, such as a call of another page,
//! it does not (mended in QEMU 8.0, "tcg: Clear plugin_mem_cbs on TB exit"). What it keeps is thrown away
//! with the translations, and then used by the next interrupt.

use std::error::Error;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use mutex_abi::marks::Mark;

use crate::api::{Api, Block, Id, Info, Insn, MemoryInfo, TranslationCallback};
use crate::instruction::{Flow, Instruction};
use crate::memory::MAX_CPUS;
use crate::ram::Ram;
use crate::watch::{Data, InstructionId, Watch};
use mutexlab_lens_recording::recording::Recording;
use mutexlab_lens_recording::settings::Settings;

/// What the plugin is at.
enum State {
    /// Only a mark to prepare is looked for.
    Idle,
    /// It has seen one: as soon as QEMU has thrown its translations away, everything is watched.
    Preparing,
    /// Everything is watched.
    Watching(Box<View>),
    /// A window was closed: everything is still told, but not looked at, until all CPUs are halted.
    Closed(Box<View>),
    /// All CPUs are: as soon as QEMU has thrown its translations away, it is idle again.
    Leaving,
}

/// What there is while everything is told.
struct View {
    watch: Watch,
    ram: Ram,
    /// The CPUs whose last instruction was not HLT. Those that have executed none since everything is
    /// told are halted since before.
    running: Vec<bool>,
}

struct Plugin {
    api: Api,
    id: Id,
    settings: Settings,
    cpus: usize,
    state: Mutex<State>,
    /// How many windows were closed.
    windows: Mutex<u64>,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// Called by QEMU once when it has loaded the plugin. Not 0 if the plugin cannot run; QEMU ends then.
///
/// # Safety
///
/// The arguments are those of QEMU's `qemu_plugin_install_func_t`.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    let arguments: Vec<&[u8]> = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the caller's promise: `argv` has `argc` strings, which stay.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_bytes())
        .collect();
    match Plugin::new(id, info, &arguments) {
        Ok(plugin) => {
            let plugin = PLUGIN.get_or_init(|| plugin);
            plugin.api.on_translation(id, translate_idly);
            0
        }
        Err(error) => {
            eprintln!("mutex-lens: {error}");
            1
        }
    }
}

impl Plugin {
    fn new(id: Id, info: &Info, arguments: &[&[u8]]) -> Result<Self, Box<dyn Error>> {
        if !info.system_emulation {
            return Err("watches machines, not programs".into());
        }
        let cpus = usize::try_from(info.cpus)?;
        let [argument] = arguments else {
            return Err("wants one argument, settings=PATH".into());
        };
        let settings = read_settings(argument, cpus)?;
        Ok(Self {
            api: Api::load(info.version)?,
            id,
            settings,
            cpus,
            state: Mutex::new(State::Idle),
            windows: Mutex::new(0),
        })
    }

    /// The plugin, which is there whenever QEMU calls.
    fn get() -> Option<&'static Self> {
        PLUGIN.get()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends QEMU.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of its recordings.
    fn save(&self, recording: &Recording) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.settings.directory.join(format!("{windows}.json"));
        *windows += 1;
        if let Err(error) = write(&path, recording) {
            eprintln!("mutex-lens: cannot write {}: {error}", path.display());
        }
    }
}

/// What `settings=PATH` says.
fn read_settings(argument: &[u8], cpus: usize) -> Result<Settings, Box<dyn Error>> {
    let path = argument.strip_prefix(b"settings=");
    let path = Path::new(OsStr::from_bytes(path.ok_or("wants settings=PATH")?));
    let cannot = |error: &dyn Error| format!("cannot read {}: {error}", path.display());
    let text = fs::read(path).map_err(|error| cannot(&error))?;
    let settings: Settings = serde_json::from_slice(&text).map_err(|error| cannot(&error))?;
    if Watch::new(&settings.caches, cpus).is_none() {
        return Err(format!(
            "cannot model caches of {cpus} CPUs (at most {MAX_CPUS}), or not such (the number of \
             sets has to be a power of two): {:?}",
            settings.caches
        )
        .into());
    }
    Ok(settings)
}

/// Writes a recording so that it is there whole or not at all.
fn write(path: &Path, recording: &Recording) -> Result<(), Box<dyn Error>> {
    let unfinished = path.with_extension("partial");
    fs::write(&unfinished, serde_json::to_vec(recording)?)?;
    Ok(fs::rename(unfinished, path)?)
}

/// All translations are gone, and all callbacks with them.
extern "C" fn after_reset(id: Id) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    let mut state = plugin.state();
    let (next, callback): (State, TranslationCallback) = match *state {
        State::Preparing => match Watch::new(&plugin.settings.caches, plugin.cpus) {
            Some(watch) => {
                let view = View {
                    watch,
                    ram: Ram::find(),
                    running: vec![false; plugin.cpus],
                };
                (State::Watching(Box::new(view)), translate)
            }
            // It was tried before.
            None => (State::Idle, translate_idly),
        },
        State::Leaving => (State::Idle, translate_idly),
        State::Idle | State::Watching(_) | State::Closed(_) => return,
    };
    *state = next;
    plugin.api.on_translation(id, callback);
}

fn instruction(api: &Api, insn: Insn) -> Instruction {
    let mut bytes = [0; Instruction::MAX_SIZE];
    Instruction::decode(api.address(insn), api.bytes(insn, &mut bytes))
}

/// A block is translated while nothing is to be watched.
extern "C" fn translate_idly(_: Id, block: Block) {
    let Some(Plugin { api, .. }) = Plugin::get() else {
        return;
    };
    for insn in api.instructions(block) {
        let mut bytes = [0; Instruction::MAX_SIZE];
        let bytes = api.bytes(insn, &mut bytes);
        if Mark::of_instruction(bytes) == Some(Mark::Prepare) {
            api.on_execution(insn, prepare, 0);
        }
    }
}

/// A mark to prepare is executed while nothing is watched.
extern "C" fn prepare(_: c_uint, _: *mut c_void) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    {
        let mut state = plugin.state();
        if !matches!(*state, State::Idle) {
            return;
        }
        *state = State::Preparing;
    }
    plugin.api.reset(plugin.id, after_reset);
}

/// A block is translated while everything is told.
extern "C" fn translate(_: Id, block: Block) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    let api = &plugin.api;
    let (State::Watching(view) | State::Closed(view)) = &mut *plugin.state() else {
        return;
    };
    for insn in api.instructions(block) {
        let physical = view.ram.physical(api.host_address(insn));
        let id = view.watch.add(instruction(api, insn), physical) as usize;
        api.on_execution(insn, execute, id);
        api.on_access(insn, access, id);
    }
}

/// An instruction is about to be executed.
extern "C" fn execute(cpu: c_uint, data: *mut c_void) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    let (cpu, id) = (cpu as usize, data.addr() as InstructionId);
    let mut state = plugin.state();
    match std::mem::replace(&mut *state, State::Leaving) {
        State::Watching(mut view) => {
            if view.watch.instruction(id).mark == Some(Mark::Prepare) {
                view.watch.restart();
            }
            view.running[cpu] = view.watch.instruction(id).flow != Flow::Halt;
            let closed = view.watch.execute(cpu, id);
            *state = match &closed {
                Some(_) => State::Closed(view),
                None => State::Watching(view),
            };
            drop(state);
            if let Some(recording) = closed {
                plugin.save(&recording);
            }
        }
        State::Closed(mut view) => {
            let Instruction { mark, flow, .. } = *view.watch.instruction(id);
            if mark == Some(Mark::Prepare) {
                view.watch.restart();
                view.running[cpu] = true;
                *state = State::Watching(view);
                return;
            }
            view.running[cpu] = flow != Flow::Halt;
            if view.running.contains(&true) {
                *state = State::Closed(view);
                return;
            }
            drop(state);
            plugin.api.reset(plugin.id, after_reset);
        }
        other => *state = other,
    }
}

/// The instruction that the CPU is at has accessed memory.
extern "C" fn access(cpu: c_uint, info: MemoryInfo, address: u64, data: *mut c_void) {
    let Some(Plugin { api, state, .. }) = Plugin::get() else {
        return;
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let State::Watching(view) = &mut *state else {
        return;
    };
    // A device's registers are not cached.
    if let Some(physical) = api.physical_address(info, address) {
        let data_access = Data {
            address,
            physical,
            size: api.size(info),
            is_write: api.is_store(info),
        };
        let id = data.addr() as InstructionId;
        view.watch.access(cpu as usize, id, data_access);
    }
}
