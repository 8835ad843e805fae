"""What tests do with a page in a browser."""

import json


def set_width(browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        },
    )


def texts(page, selector):
    return [e.text for e in page.find_elements("css selector", selector)]


def style(page, selector, name):
    element = page.find_element("css selector", selector)
    return element.value_of_css_property(name)


def requests_of(browser, address):
    """Opens a page; returns the addresses that it asked for."""
    browser.get_log("performance")
    browser.get(address)
    messages = [
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    ]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
