//! Clients with wills, one after the other: one vanishes, one says goodbye, one is connected when the broker is killed. None comes back.

use super::{
    chance::Chance,
    ledger::{Id, Kind, payload},
    link::World,
    wire::{Hello, V3, V5},
};

pub struct Mortals {
    name: String,
    chance: Chance,
    world: World,
    /// Whether sessions and their wills outlive the broker.
    wills_outlive: bool,
}

impl Mortals {
    pub fn new(name: &str, chance: Chance, world: World, wills_outlive: bool) -> Self {
        Self { name: name.to_owned(), chance, world, wills_outlive }
    }

    pub async fn run(mut self) {
        let mut count = 0;
        while self.is_called().await {
            count += 1;
            self.one(count).await;
        }
    }

    /// Waits for load; false at the end of the run.
    async fn is_called(&mut self) -> bool {
        let called = self.world.phase.wait_for(|phase| phase.end || (phase.load && phase.address.is_some()));
        called.await.is_ok_and(|phase| !phase.end)
    }

    async fn one(&mut self, count: u32) {
        let name = format!("{}-{count}", self.name);
        let (topic, qos) = (format!("wills/{name}"), self.chance.below(2) as u8 + 1);
        let number = self.world.ledger.sending(&name, &topic, qos, Kind::Will);
        let mut hello = Hello::new(*self.chance.pick(&[V3, V5]), &name, false);
        hello.will = Some((topic, payload(number, 10), qos));
        let Some((mut link, _)) = self.world.connect(&hello).await else { return };
        let (life, polite) = (self.chance.millis(250), self.chance.once_in(3));
        tokio::select! {
            // The broker was killed, or the connection was cut by whoever stands between.
            _ = link.next() => return self.vanished(number),
            () = tokio::time::sleep(life) => {}
        }
        if !polite {
            link.cut(&[], &mut self.chance).await;
            self.vanished(number);
        } else if link.leave().await {
            self.world.ledger.will_withdrawn(number);
        }
    }

    fn vanished(&self, number: Id) {
        if self.wills_outlive {
            self.world.ledger.acknowledged(number);
        }
    }
}
