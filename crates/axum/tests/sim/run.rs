//! One run: hosts, network and faults, step by step.

use std::sync::Arc;
use std::time::Duration;

use turmoil::{Builder, Sim};

use crate::history::{Event, History};
use crate::setting::{CLIENTS, Family, Fault, NODES, Setting};
use crate::world::World;
use crate::{client, node};

/// What happens with this seed. The same seed, the same history.
pub(crate) fn run(family: Family, seed: u64) -> (Setting, History) {
    let setting = Setting::of(family, seed);
    let world = Arc::new(World::new(setting.clone()));
    let mut cluster = Cluster::start(&world);
    let mut faults = setting.faults.iter().copied().peekable();
    for now in 0..setting.end_at {
        world.set_time(now);
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at == now && now < setting.mended_at) {
            cluster.happen(fault);
        }
        if now == setting.mended_at {
            cluster.mend();
        }
        cluster.sim.step().expect("no host fails");
    }
    let history = world.history();
    (setting, history)
}

struct Cluster<'a> {
    world: Arc<World>,
    sim: Sim<'a>,
    up: [bool; NODES],
}

impl Cluster<'_> {
    fn start(world: &Arc<World>) -> Self {
        let setting = &world.setting;
        let mut sim = Builder::new()
            .rng_seed(setting.seed)
            .enable_random_order()
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(setting.longest_link as u64))
            .build();
        sim.set_message_latency_curve(setting.curve);
        for number in 0..NODES {
            let world = world.clone();
            sim.host(node::name(number), move || node::run(world.clone(), number));
        }
        for number in 0..CLIENTS {
            sim.client(client::name(number), client::run(world.clone(), number));
        }
        Self { world: world.clone(), sim, up: [true; NODES] }
    }

    fn happen(&mut self, fault: Fault) {
        self.world.record(Event::Fault(fault));
        match fault {
            Fault::Crash(node) if self.up[node] => {
                self.up[node] = false;
                self.world.record(Event::Crashed { node });
                self.sim.crash(node::name(node));
            }
            Fault::Restart(node) if !self.up[node] => {
                self.up[node] = true;
                self.sim.bounce(node::name(node));
            }
            Fault::Crash(_) | Fault::Restart(_) => {}
            Fault::Cut { client, node } => self.sim.partition(client::name(client), node::name(node)),
            Fault::CutBack { client, node } => self.sim.partition_oneway(node::name(node), client::name(client)),
            Fault::Hold { client, node } => self.sim.hold(client::name(client), node::name(node)),
            Fault::Mend { client, node } => self.sim.release(client::name(client), node::name(node)),
            Fault::StoreAway(away) => self.world.store_away(away),
            Fault::StoreCut(node, cut) => self.world.store_cut(node, cut),
            Fault::Lose(writes) => self.world.lose(writes),
            Fault::SignIn => self.world.another_signs_in(),
            Fault::NewPassword(from) => self.world.new_password(from),
        }
    }

    /// All is well from now on.
    fn mend(&mut self) {
        self.happen(Fault::StoreAway(false));
        for node in 0..NODES {
            self.happen(Fault::Restart(node));
            self.happen(Fault::StoreCut(node, false));
            for client in 0..CLIENTS {
                self.happen(Fault::Mend { client, node });
            }
        }
    }
}
