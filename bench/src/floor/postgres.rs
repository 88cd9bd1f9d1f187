//! One point SELECT, and if asked for one conditional UPDATE, over as many pipelined connections as baton has for them.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::{ENTRIES, Turn};
use crate::Failure;

/// As `store.connections`.
const CONNECTIONS: usize = 4;

const TABLE: &str = "
    DROP TABLE IF EXISTS floor;
    CREATE TABLE floor (
        id            bigint PRIMARY KEY,
        generation    bigint NOT NULL,
        handed_out_at bigint NOT NULL,
        expires_at    bigint NOT NULL,
        uid           text NOT NULL
    ) WITH (fillfactor = 80);
    INSERT INTO floor SELECT n, 1, 0, 0, 'bench-' || n || '@example.com' FROM generate_series(0, $ENTRIES - 1) n;
    ANALYZE floor;";
const SELECT: &str = "SELECT generation, handed_out_at, expires_at, uid FROM floor WHERE id = $1";
const UPDATE: &str = "UPDATE floor SET generation = generation + 1, handed_out_at = $3, expires_at = $3 WHERE id = $1 AND generation = $2";

/// A table of its own, and connections to it.
pub(super) struct Postgres {
    wires: Vec<Wire>,
    wire: Turn,
    entry: Turn,
    update: bool,
}

struct Wire {
    client: Client,
    select: Statement,
    update: Statement,
}

impl Postgres {
    pub(super) async fn open(url: &str, update: bool) -> Result<Self, Failure> {
        let mut config: Config = url.parse().map_err(failed)?;
        // What baton sets; with `synchronous_commit` off as it has it for rotations. A table as small as this one would be read
        // from end to end, which takes twice as long as the way by the index that any larger one is read.
        config.options(concat!(
            r"-c statement_timeout=5000 -c default_transaction_isolation=read\ committed -c synchronous_commit=off",
            " -c enable_seqscan=off"
        ));
        let mut wires = Vec::with_capacity(CONNECTIONS);
        for number in 0..CONNECTIONS {
            let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
            tokio::spawn(connection);
            if number == 0 {
                client.batch_execute(&TABLE.replace("$ENTRIES", &ENTRIES.to_string())).await.map_err(failed)?;
            }
            let select = client.prepare_typed(SELECT, &[Type::INT8]).await.map_err(failed)?;
            let update = client.prepare_typed(UPDATE, &[Type::INT8, Type::INT8, Type::INT8]).await.map_err(failed)?;
            wires.push(Wire { client, select, update });
        }
        Ok(Self { wires, wire: Turn::default(), entry: Turn::default(), update })
    }

    pub(super) async fn touch(&self) -> Result<(), Failure> {
        let Wire { client, select, .. } = self.pick();
        let id = self.entry.next(ENTRIES) as i64;
        let rows = client.query(select, &[&id]).await.map_err(failed)?;
        let row = rows.first().ok_or_else(|| Failure::Server("a row of the floor is gone".into()))?;
        let (generation, _uid): (i64, &str) = (row.get(0), row.get(3));
        if self.update {
            let Wire { client, update, .. } = self.pick();
            let made = client.execute(update, &[&id, &generation, &generation]).await.map_err(failed)?;
            if made != 1 {
                return Err(Failure::Server("two requests met in a row of the floor".into()));
            }
        }
        Ok(())
    }

    fn pick(&self) -> &Wire {
        &self.wires[self.wire.next(self.wires.len())]
    }
}

fn failed(error: tokio_postgres::Error) -> Failure {
    Failure::Server(format!("PostgreSQL: {error}"))
}
