SUMMARY = "Device security agent and an MQTT broker on the device"
DESCRIPTION = "For products whose own services read alerts from a local broker, or whose broker is a bridge to another one: set \
sink.mqtt.host to localhost."

inherit packagegroup

RDEPENDS:${PN} = "mosquitto \
                  packagegroup-defender"
