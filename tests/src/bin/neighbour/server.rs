//! nginx as a service of the host's.

use std::net::TcpStream;

use sandbox_tests::{Scene, systemctl, wait};

const ADDRESS: &str = "127.0.0.1:8080";

/// nginx, as `api.service`. Dropped, it is stopped.
pub(crate) struct Server {
    /// What it serves.
    _scene: Scene,
}

impl Server {
    pub(crate) fn start() -> Self {
        let scene = Scene::new();
        let folder = scene.folder().display();
        scene.write("index.html", &"as ever\n".repeat(512));
        let config = format!(
            "daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n\
             events {{}}\nhttp {{\n  access_log off;\n  server {{ listen {ADDRESS}; root {folder}; }}\n}}\n"
        );
        scene.write("nginx.conf", &config);
        let _started = scene
            .bash("systemd-run --quiet --collect --unit=api nginx -c $PWD/nginx.conf")
            .expect(0);
        wait::until("nginx to listen", || TcpStream::connect(ADDRESS).is_ok());
        Self { _scene: scene }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{ADDRESS}/index.html")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        systemctl(&["stop", "api.service"]);
    }
}
