//! Which data sources of rules the sensors supply: the one table that `rules check` and `rules list` go by.

use defender_detect::{DataSource, DataSources};

use defender_sensors::process::Preference;

use crate::config::Config;

/// Why nothing of this source will be seen with this configuration; `None` where a sensor supplies it.
#[must_use]
pub fn missing(source: DataSource, config: &Config) -> Option<&'static str> {
    match source {
        DataSource::Process => (!config.process.enabled).then_some("`process.enabled` is false"),
        DataSource::Login => (!config.login.enabled).then_some("`login.enabled` is false"),
        DataSource::Flow => (!config.network.enabled).then_some("`network.enabled` is false"),
        DataSource::Listener => {
            let off = !config.network.enabled || config.network.listen_interval_s == 0;
            off.then_some("`network.enabled` is false, or `network.listen_interval_s` 0")
        }
        DataSource::Dns => (!config.network.enabled || !config.network.dns)
            .then_some("`network.enabled` or `network.dns` is false"),
        DataSource::File => (!config.files.enabled).then_some("`files.enabled` is false"),
        DataSource::Peripheral => (!config.peripheral.enabled).then_some("`peripheral.enabled` is false"),
        DataSource::Submitted => (!config.dbus.enabled || !cfg!(feature = "dbus"))
            .then_some("`dbus.enabled` is false, or the agent was built without D-Bus"),
        DataSource::Firewall => (!config.firewall.monitor).then_some("`firewall.monitor` is false"),
        DataSource::Account => (!config.accounts.enabled).then_some("`accounts.enabled` is false"),
        DataSource::Service => (!config.services.enabled).then_some("`services.enabled` is false"),
        DataSource::Module => (!config.module.enabled).then_some("`module.enabled` is false"),
        DataSource::Deed => {
            let told = !matches!(config.process.source.0, Preference::Connector | Preference::Poll);
            (!config.process.enabled || !told)
                .then_some("`process.enabled` is false, or `process.source` neither audit nor eBPF")
        }
        DataSource::FileRead => Some("no sensor of this version supplies them"),
    }
}

/// Why a rule that needs these sources cannot hold with this configuration: `it needs logins: ...`; `None` where it can.
#[must_use]
pub fn idle(needs: DataSources, config: &Config) -> Option<String> {
    let lacking: Vec<String> = needs
        .iter()
        .filter_map(|source| missing(source, config).map(|why| format!("{source} ({why})")))
        .collect();
    (!lacking.is_empty()).then(|| format!("it needs {}", lacking.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_idle_when_one_of_its_sources_is_missing() {
        let mut config = Config::default();
        let both = DataSources::of(DataSource::Process).union(DataSources::of(DataSource::Login));
        assert_eq!(idle(both, &config), None);
        assert_eq!(idle(DataSources::NONE, &config), None);
        config.login.enabled = false;
        assert_eq!(idle(both, &config).as_deref(), Some("it needs logins (`login.enabled` is false)"));
        config.process.enabled = false;
        let why = idle(both, &config).unwrap();
        assert!(why.contains("programs started (`process.enabled` is false) and logins"), "{why}");
        assert_eq!(idle(DataSources::of(DataSource::Process), &Config::default()), None);
        let mut polled = Config::default();
        assert_eq!(missing(DataSource::Deed, &polled), None);
        polled.process.source.0 = Preference::Poll;
        assert!(missing(DataSource::Deed, &polled).is_some_and(|why| why.contains("process.source")));
    }
}
