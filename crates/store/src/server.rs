//! A PostgreSQL server: its sessions, and the tables in a schema of their own.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_core::ports::StoreError;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection};
use url::Url;

use crate::address::Address;
use crate::log::{unavailable, words};
use crate::schema::{self, FORMAT};

/// Longest wait for a connection where somebody opens or reads the store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a connection before a decision, which must not hold up those that need no store.
pub(crate) const PATIENCE_OF_DECISIONS: Duration = Duration::from_secs(1);
/// Said to the server at the beginning of every session.
///
/// A commit is on its disk when it returns, whatever it is used to. A controller that was stopped in the middle of a
/// transaction does not keep its successor out: the server ends such a session. All of it in milliseconds.
const SESSION: &str = "
    SET search_path TO evenkeel;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
    SET idle_in_transaction_session_timeout = 1000;
    SET lock_timeout = 2000;
    SET statement_timeout = 10000;
    SET client_min_messages = warning;
";
/// Keeps two processes from making the tables at the same time; any number that nobody else uses.
const MAKING: &str = "SELECT pg_advisory_xact_lock(7301842201)";
const FIND: &str = "SELECT count(*) FROM information_schema.tables
    WHERE table_schema = 'evenkeel' AND table_name = 'meta'";

/// What every connection is made with.
pub(crate) fn options(url: &Url) -> sqlx::Result<AnyConnectOptions> {
    Ok(AnyConnectOptions::from_url(url)?.disable_statement_logging())
}

/// Connections whose sessions are set up; made when they are needed.
pub(crate) fn pool(url: &Url, connections: u32, patience: Duration) -> sqlx::Result<AnyPool> {
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|connection, _| Box::pin(begin_session(connection)));
    Ok(pool.connect_lazy_with(options(url)?))
}

async fn begin_session(connection: &mut AnyConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(SESSION).execute(connection).await.map(drop)
}

/// Makes sure that the tables of this format are there; makes them where there are none.
///
/// # Errors
/// [`StoreError::NewerFormat`]; [`StoreError::Unavailable`] when the server does not answer or does not let us.
pub(crate) async fn prepare(address: &Address, url: &Url) -> Result<(), StoreError> {
    let late = |_| unavailable(address, format!("no answer within {PATIENCE:?}"));
    let found = tokio::time::timeout(PATIENCE, make_tables(url)).await.map_err(late)?;
    let found = found.map_err(|error| unavailable(address, words(&error)))?;
    if found > FORMAT {
        return Err(StoreError::NewerFormat { path: PathBuf::from(address.to_string()), found, known: FORMAT });
    }
    Ok(())
}

/// Answers the format of the tables.
async fn make_tables(url: &Url) -> sqlx::Result<i64> {
    let mut connection = AnyConnection::connect_with(&options(url)?).await?;
    begin_session(&mut connection).await?;
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(MAKING).execute(&mut *transaction).await?;
    let there: i64 = sqlx::query_scalar(FIND).fetch_one(&mut *transaction).await?;
    if there == 0 {
        sqlx::raw_sql("CREATE SCHEMA IF NOT EXISTS evenkeel").execute(&mut *transaction).await?;
        sqlx::raw_sql(schema::postgres()).execute(&mut *transaction).await?;
    }
    let query = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'format'");
    let found = query.fetch_one(&mut *transaction).await?;
    if found == FORMAT {
        sqlx::raw_sql(schema::postgres_notes()).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(found)
}
