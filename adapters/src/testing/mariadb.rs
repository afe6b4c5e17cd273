//! MariaDB, as Debian's `mariadb-server` package has it.

use std::net::SocketAddr;
use std::process::Command;

use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::OnceCell;

use super::server::{Server, ask};
use super::{Durability, NULL, PASSWORD, USER, find_program, skip};

/// A running MariaDB.
#[derive(Debug)]
pub struct MariaDb {
    server: Server,
}

impl MariaDb {
    /// The server that all tests of this process share.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<MariaDb>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    /// A server for one test, to be stopped and paused.
    pub async fn start() -> Option<Self> {
        Self::start_with(Durability::Process).await
    }

    /// A server that keeps what it commits as `durability` says.
    pub async fn start_with(durability: Durability) -> Option<Self> {
        Self::start_set(durability, &[]).await
    }

    /// A server with more settings, as `name=value`.
    pub async fn start_set(durability: Durability, settings: &[&str]) -> Option<Self> {
        let [Some(install), Some(mariadbd), Some(_)] =
            ["mariadb-install-db", "mariadbd", "mariadb"].map(|name| find_program(name, &[]))
        else {
            skip("MariaDB is not installed");
            return None;
        };
        let server = Server::new("mysql");
        let defaults = "--no-defaults".to_owned();
        let data = format!("--datadir={}", server.dir.join("data").display());
        let form = ["--auth-root-authentication-method=normal", "--skip-test-db"];
        let form = form.map(str::to_owned);
        server.create(&install, &[&[defaults.clone(), data.clone()][..], &form].concat());

        let user = format!(
            "CREATE OR REPLACE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n"
        );
        let init = server.write("init.sql", &user);
        let mut arguments = vec![
            defaults,
            data,
            format!("--port={}", server.port),
            format!("--socket={}", server.dir.join("socket").display()),
            format!("--init-file={}", init.display()),
        ];
        let mut set = |setting: &str| arguments.push(format!("--{setting}"));
        set("bind-address=127.0.0.1");
        set("skip-name-resolve");
        set("max-connections=200");
        if durability == Durability::Process {
            set("innodb-flush-log-at-trx-commit=2");
            set("innodb-flush-method=nosync");
            set("innodb-doublewrite=0");
        }
        settings.iter().for_each(|setting| arguments.push(format!("--{setting}")));
        server.start(&mariadbd, &arguments);
        let mariadb = Self { server };
        mariadb.ready().await;
        Some(mariadb)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How to log in, as a user who may do anything. Point it at a [`Proxy`](super::Proxy) by its
    /// port.
    pub fn options(&self) -> MySqlConnectOptions {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.address().port());
        options.username(USER).password(PASSWORD)
    }

    /// A name for a database that no test has had. It is not created.
    pub fn fresh(&self) -> String {
        self.server.fresh()
    }

    /// Crashes it. What it committed stays.
    pub fn stop(&self) {
        self.server.order("stop");
    }

    /// Starts it again, at the same address, after [`stop`](Self::stop).
    pub async fn restart(&self) {
        self.server.order("stop");
        self.server.order("start");
        self.ready().await;
    }

    /// Freezes it: connections stay, and nothing answers.
    pub fn pause(&self) {
        self.server.order("pause");
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.server.order("resume");
    }

    /// What `mariadb` prints for `sql`: a line per row, `|` between columns, and [`NULL`].
    pub async fn mariadb(&self, sql: &str) -> String {
        let printed = self.ask(sql).await;
        printed.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn ready(&self) {
        self.server.ready(async || self.ask("SELECT @@datadir").await).await;
    }

    async fn ask(&self, sql: &str) -> Result<String, String> {
        let mut client = Command::new("mariadb");
        // In its other formats, NULL and the text NULL look the same.
        client.args(["--no-defaults", "--xml", "--default-character-set=utf8mb4"]);
        client.args(["--host=127.0.0.1", "--connect-timeout=10"]);
        client.args([&format!("--port={}", self.address().port()), &format!("--user={USER}")]);
        client.args(["--execute", sql]).env("MYSQL_PWD", PASSWORD);
        ask(client).await.map(|xml| tuples(&xml))
    }
}

/// The rows of the client's XML, a line each.
fn tuples(xml: &str) -> String {
    let rows = xml.split("<row>").skip(1).map(|row| {
        let row = row.split("</row>").next().unwrap_or_default();
        row.split("<field ").skip(1).map(field).collect::<Vec<_>>().join("|")
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// The value of a field: `name="n">value</field>`, or `name="n" xsi:nil="true" />`.
fn field(text: &str) -> String {
    let (head, tail) = text.split_once('>').unwrap_or((text, ""));
    if head.ends_with("xsi:nil=\"true\" /") {
        return NULL.to_owned();
    }
    let value = tail.split("</field>").next().unwrap_or_default();
    let plain = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    plain.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_lines_and_null_is_no_text() {
        let xml = "<?xml version=\"1.0\"?>\n<resultset>\n  <row>\n\t<field name=\"a\">1 &lt; \
                   &amp;lt;</field>\n\t<field name=\"b\" xsi:nil=\"true\" />\n  </row>\n\n  \
                   <row>\n\t<field name=\"a\"></field>\n\t<field name=\"b\">NULL</field>\n  \
                   </row>\n</resultset>\n";
        assert_eq!(tuples(xml), "1 < &lt;|∅\n|NULL");
    }
}
