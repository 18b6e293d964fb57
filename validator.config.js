// pm2 start validator.config.js: the validator's three services under pm2. Settings: .env.validator beside this file.
const path = require("path");

const service = (name) => ({
  name,
  cwd: __dirname,
  script: path.join(__dirname, ".venv", "bin", "gascli"),
  interpreter: "none",
  args: ["validator", "serve", "--service", name, "--env-file", path.join(__dirname, ".env.validator")],
  exec_mode: "fork",
  autorestart: true,
  // Status 2 means wrong settings: starting again would change nothing.
  stop_exit_codes: [2],
  exp_backoff_restart_delay: 1000,
  kill_timeout: 15000,
  merge_logs: true,
});

module.exports = { apps: ["sn34-validator", "sn34-generator", "sn34-data"].map(service) };
