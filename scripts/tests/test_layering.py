"""scripts/layering finds what it forbids: violations are planted in a small workspace, one at a time."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

LAYERING = Path(__file__).resolve().parent.parent / "layering"

CRATES = {
    "konsul-proto": ("proto", []),
    "konsul-state": ("server/state", []),
    "konsul-raft": ("server/raft", ["konsul-state"]),
    "konsul-service": ("server/service", ["konsul-proto", "konsul-state"]),
    "konsul-fronts": ("server/fronts", []),
    "konsul-server": ("server", ["konsul-raft", "konsul-service", "konsul-fronts"]),
}

PROTO = 'syntax = "proto3";\npackage konsul.v1;\nservice KV {\n}\n'


class Workspace:
    """A workspace that keeps to every rule, on disk, for a test to spoil."""

    def __init__(self, root):
        self.root = Path(root)
        members = json.dumps([folder for folder, _ in CRATES.values()])
        self.write("Cargo.toml", f'[workspace]\nresolver = "3"\nmembers = {members}\n')
        self.write("proto/konsul/v1/kv.proto", PROTO)
        for name, (folder, dependencies) in CRATES.items():
            lines = [f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2024"\n\n[dependencies]']
            lines += [f'{dep} = {{ path = "{self.up(folder)}/{CRATES[dep][0]}" }}' for dep in dependencies]
            self.write(f"{folder}/Cargo.toml", "\n".join(lines) + "\n")
            self.write(f"{folder}/src/lib.rs", "//! Nothing.\n")

    @staticmethod
    def up(folder):
        """The way from a crate's folder to the root."""
        return "/".join([".."] * (folder.count("/") + 1))

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def append(self, path, text):
        with (self.root / path).open("a") as file:
            file.write(text)

    def check(self):
        """The exit code and the lines that scripts/layering prints."""
        done = subprocess.run([sys.executable, LAYERING, "--root", self.root], capture_output=True, text=True, check=False)
        if done.stderr:
            raise AssertionError(done.stderr)
        return done.returncode, done.stdout.splitlines()


class Layering(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="konsul-layering-")
        self.addCleanup(folder.cleanup)
        self.workspace = Workspace(folder.name)

    def assert_found(self, line):
        self.assertEqual(self.workspace.check(), (1, [line]))

    def test_a_workspace_that_keeps_to_the_rules_passes(self):
        self.assertEqual(self.workspace.check(), (0, []))

    def test_an_arrow_that_is_not_drawn(self):
        self.workspace.append("server/service/Cargo.toml", 'konsul-raft = { path = "../raft" }\n')
        self.assert_found("server/service/Cargo.toml:9: konsul-service: may not depend on konsul-raft")

    def test_a_test_dependency_that_is_not_listed(self):
        self.workspace.append("server/state/Cargo.toml", '[dev-dependencies]\nkonsul-proto = { path = "../../proto" }\n')
        self.assert_found("server/state/Cargo.toml:8: konsul-state: its tests may not depend on konsul-proto")

    def test_a_crate_that_the_table_does_not_know(self):
        manifest = (self.workspace.root / "proto/Cargo.toml").read_text()
        self.workspace.write("extra/Cargo.toml", manifest.replace("konsul-proto", "konsul-extra"))
        self.workspace.write("extra/src/lib.rs", "")
        workspace = (self.workspace.root / "Cargo.toml").read_text()
        self.workspace.write("Cargo.toml", workspace.replace('"proto"', '"proto", "extra"'))
        self.assert_found("extra/Cargo.toml:1: konsul-extra is not in the table of arrows (scripts/layering)")

    def test_a_hidden_library_as_a_dependency(self):
        self.workspace.append("server/service/Cargo.toml", 'heed = "1"\n')
        self.assert_found("server/service/Cargo.toml:9: konsul-service: heed belongs to konsul-state alone")

    def test_a_hidden_library_named_in_the_sources(self):
        self.workspace.append("server/service/src/lib.rs", "// heed::Env may be named in a comment\nuse heed::Env;\n")
        self.assert_found("server/service/src/lib.rs:3: heed is named in konsul-state alone")

    def test_the_state_on_a_runtime(self):
        self.workspace.append("server/state/Cargo.toml", 'tokio = "1"\n')
        self.assert_found("server/state/Cargo.toml:7: konsul-state: must do without tokio")

    def test_the_state_that_names_a_runtime(self):
        self.workspace.append("server/state/src/lib.rs", 'const A: &str = "tokio::spawn";\nfn f() { tokio::spawn(()); }\n')
        self.assert_found("server/state/src/lib.rs:3: konsul-state must do without tokio")

    def test_a_front_that_names_a_generated_client(self):
        self.workspace.append("server/fronts/src/lib.rs", "use konsul_proto::v1::kv_client::KvClient;\n")
        self.assert_found("server/fronts/src/lib.rs:2: konsul-fronts names no service of the API, but here is kv_client")

    def test_a_front_that_names_a_path_of_the_api(self):
        self.workspace.append("server/fronts/src/lib.rs", 'const GET: &str = "/konsul.v1.KV/Get";\n')
        self.assert_found("server/fronts/src/lib.rs:2: konsul-fronts names no service of the API, but here is konsul.v1.KV")

    def test_all_layers_meet_outside_boot(self):
        two = "use konsul_service::Limits;\nuse konsul_fronts::Bounds;\n"
        self.workspace.write("server/src/config/mod.rs", two)
        self.workspace.write("server/src/boot.rs", f"{two}use konsul_raft::Node;\n")
        self.workspace.write("server/src/telemetry.rs", f"{two}\nuse konsul_raft::Node;\n")
        self.assert_found("server/src/telemetry.rs:4: only src/boot.rs may know konsul-raft, konsul-service, konsul-fronts together")


if __name__ == "__main__":
    unittest.main()
