include $(sort $(wildcard $(BR2_EXTERNAL_DEFENDER_PATH)/package/*/*.mk))
